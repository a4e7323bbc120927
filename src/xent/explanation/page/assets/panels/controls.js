// Controls of the whole page: words or mathematics, light or dark, motion, link, Python.

import { h, mark, write } from "../dom.js";
import { permalink } from "../state.js";
import { asPython } from "../python.js";

const THEMES = ["auto", "light", "dark"];

export function mount(root, store) {
  const said = h("span", { class: "said", role: "status" });
  const theme = h("select", { id: "theme", "aria-label": "colours" }, THEMES.map((name) => h("option", { value: name }, `${name} colours`)));
  const reading = h("select", { id: "reading", "aria-label": "words or mathematics" }, ["words and maths", "words", "maths"].map((name) => h("option", { value: name }, name)));
  const motion = h("input", { type: "checkbox", id: "motion" });
  const code = h("textarea", { class: "python", readonly: true, rows: 12, "aria-label": "Python", hidden: true, spellcheck: "false" });
  const page = document.documentElement;
  motion.checked = matchMedia("(prefers-reduced-motion: reduce)").matches;
  mark(page, "data-still", motion.checked);
  theme.addEventListener("change", () => mark(page, "data-theme", theme.value));
  reading.addEventListener("change", () => mark(page, "data-reading", reading.value));
  motion.addEventListener("change", () => mark(page, "data-still", motion.checked));
  const link = h("button", { type: "button", "data-do": "link", onclick: async () => {
    history.replaceState(null, "", permalink(store.state));
    write(said, await copied(location.href) ? "The link is copied." : "The link stands in the address bar.");
  } }, "Copy link");
  const python = h("button", { type: "button", "data-do": "python", onclick: async () => {
    code.hidden = false;
    code.value = asPython(store.state);
    write(said, await copied(code.value) ? "The Python is copied." : "Here is the Python.");
  } }, "Copy as Python");
  root.append(h("div", { class: "row" }, reading, theme, h("label", { for: "motion" }, motion, " no motion"), link, python, said), code);
  store.listen((state) => {
    if (!code.hidden) code.value = asPython(state);
  });
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}
