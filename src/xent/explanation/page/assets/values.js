// Numbers on the page: each knows its exact value, and how it came about.

import { h, mark, write } from "./dom.js";
import { number } from "./numbers.js";

/** A number that a test can find by its name, and a reader can ask where it comes from. */
export function shown(name, place = null, attribute = "data-class") {
  return h("span", { class: "number", "data-name": name, [attribute]: place });
}

/** Writes a number; `how` is the calculation in words, shown when it is pointed at. */
export function show(element, value, how, form = number) {
  write(element, form(value));
  mark(element, "data-value", String(value));
  mark(element, "data-how", how);
  element.classList.toggle("broken", !Number.isFinite(value));
}

/** Says in one line at the foot of the page how the number under the pointer came about. */
export function tellHow(root, line) {
  const tell = (event) => {
    const found = event.target.closest?.("[data-how]");
    write(line, found === null || found === undefined ? "" : found.dataset.how);
  };
  root.addEventListener("pointerover", tell);
  root.addEventListener("focusin", tell);
}
