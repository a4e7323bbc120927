// The page: one store, and panels that follow it.

import { embedded, fromPermalink, store } from "./state.js";
import { tellHow } from "./values.js";
import { mount as controls } from "./panels/controls.js";
import { mount as input } from "./panels/input.js";
import { mount as stages } from "./panels/stages.js";
import { mount as falls } from "./panels/falls.js";
import { mount as sigmoids } from "./panels/sigmoid.js";
import { mount as batch } from "./panels/batch.js";
import { mount as mistakes } from "./panels/mistakes.js";
import { mount as numerics } from "./panels/numerics.js";

const PANELS = { controls, input, stages, falls, sigmoids, batch, mistakes, numerics };

const start = fromPermalink(location.hash) ?? embedded(document.getElementById("state").textContent);
const page = store(start);

for (const [name, mount] of Object.entries(PANELS)) {
  mount(document.querySelector(`[data-panel="${name}"] .panel`), page);
}
addEventListener("hashchange", () => {
  const linked = fromPermalink(location.hash);
  if (linked !== null) page.change((state) => Object.assign(state, linked));
});
light(document.body);
tellHow(document.body, document.getElementById("how"));
document.getElementById("static").hidden = true;
document.getElementById("page").hidden = false;
requestAnimationFrame(() => performance.mark("ready"));

/** Pointing at a class lights it up everywhere. */
function light(root) {
  let lit = null;
  const point = (event) => {
    const found = event.target.closest?.("[data-class]")?.dataset.class ?? null;
    if (found === lit) return;
    root.querySelectorAll(".lit").forEach((element) => element.classList.remove("lit"));
    if (found !== null) root.querySelectorAll(`[data-class="${found}"]`).forEach((element) => element.classList.add("lit"));
    lit = found;
  };
  root.addEventListener("pointerover", point);
  root.addEventListener("focusin", point);
}
