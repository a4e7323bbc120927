// The input strip: a bar for each logit, to drag, step with keys, or type; and the label.

import { h, mark, write } from "../dom.js";
import { parsed, short } from "../numbers.js";
import { LEAST_CLASSES, MOST_CLASSES, PRESETS, oneHot, share } from "../state.js";
import { show, shown } from "../values.js";
import { sum } from "../mathematics.js";
import { traced } from "../traced.js";

const KEYS = { ArrowUp: 0.1, ArrowRight: 0.1, ArrowDown: -0.1, ArrowLeft: -0.1, PageUp: 1, PageDown: -1 };

export function mount(root, store) {
  const strip = h("div", { class: "strip" });
  const presets = Object.keys(PRESETS).map((name) =>
    h("button", { type: "button", "data-preset": name, onclick: () => start(store, PRESETS[name]()) }, name),
  );
  const soft = h("input", { type: "checkbox", id: "soft", onchange: () => soften(store, soft.checked) });
  const total = shown("page.label_sum");
  const loss = shown("row.loss");
  const sumOfLabel = h("span", { class: "when-soft" }, "labels sum to ", total);
  const more = h("button", { type: "button", onclick: () => add(store) }, "Add a class");
  root.append(
    h("div", { class: "row" }, h("span", { class: "caption" }, "Begin with"), presets),
    strip,
    h("p", { class: "result" }, "loss ", loss),
    h("div", { class: "row" }, more, h("label", { for: "soft" }, soft, " soft label"), sumOfLabel),
  );
  let columns = [];
  store.listen((state) => {
    if (columns.length !== state.names.length) {
      columns = state.names.map((_, c) => column(store, c));
      strip.replaceChildren(...columns.map((each) => each.element));
    }
    const row = state.rows[state.current];
    const needed = row.logits.filter(Number.isFinite).map((x) => Math.ceil(Math.abs(x) / 10) * 10);
    // A scale that changed under the hand would carry the handle away.
    const held = strip.querySelector("[data-held]")?.dataset.held;
    const reach = held === undefined ? Math.max(10, ...needed) : Number(held);
    columns.forEach((each, c) => each.update(state, row, c, reach));
    soft.checked = row.index === null;
    mark(root, "data-soft", row.index === null);
    const { trace } = traced(state);
    show(loss, trace.loss, `${trace.terms.map(short).join(" + ")} = ${short(trace.loss)} nats`);
    show(total, sum(row.label), "the sum of the label over the classes: 1 if it is a probability");
    const fixed = state.kind === "binary" || row.rest !== null;
    more.disabled = fixed || state.names.length >= MOST_CLASSES;
  });
}

/** Another example, seen as before: smoothing, reduction and step size stay. */
function start(store, fresh) {
  const { smoothing, reduction, stepSize } = store.state;
  store.change((state) => Object.assign(state, fresh, { smoothing, reduction, stepSize }));
}

function column(store, c) {
  const fill = h("div", { class: "fill" });
  const handle = h("div", { class: "handle" });
  const slider = h("div", { class: "slider", role: "slider", tabindex: 0, "aria-orientation": "vertical" }, fill, handle);
  const name = h("input", { type: "text", class: "name", maxlength: 60, "aria-label": `name of class ${c}` });
  const typed = h("input", { type: "text", class: "typed", inputmode: "decimal" });
  const label = h("input", { type: "radio", name: "label", class: "label" });
  const amount = h("input", { type: "range", min: 0, max: 1, step: 0.01, class: "amount when-soft" });
  const amountText = h("span", { class: "when-soft" });
  const p = shown("classes.p", c);
  const remove = h("button", { type: "button", class: "remove" }, "×");
  let reach = 10;
  const set = (value) => store.change((_, row) => {
    row.logits[c] = Math.round(Math.min(reach, Math.max(-reach, value)) * 1e6) / 1e6;
  });
  drag(slider, () => reach, set);
  slider.addEventListener("keydown", (event) => {
    const now = Number(slider.getAttribute("aria-valuenow"));
    const next = { Home: -reach, End: reach }[event.key] ?? now + KEYS[event.key];
    if (Number.isNaN(next)) return;
    event.preventDefault();
    set(Math.round(next * 10) / 10);
  });
  typed.addEventListener("change", () => {
    const value = parsed(typed.value);
    mark(typed, "aria-invalid", value === null);
    if (value !== null) store.change((_, row) => { row.logits[c] = value; });
  });
  name.addEventListener("input", () => store.change((state) => { state.names[c] = name.value; }));
  label.addEventListener("change", () => store.change((_, row) => choose(row, c)));
  amount.addEventListener("input", () => store.change((_, row) => { row.label = share(row.label, c, amount.valueAsNumber); }));
  remove.addEventListener("click", () => {
    drop(store, c);
    const names = () => [...document.querySelectorAll(".strip .name")];
    requestAnimationFrame(() => names()[Math.min(c, names().length - 1)]?.focus());
  });
  const element = h(
    "div", { class: "column", "data-class": c },
    remove, name, slider, typed, h("span", { class: "share" }, "p ", p),
    h("label", { class: "choice" }, label, h("span", {}, " label")), amount, amountText,
  );
  return { element, update };

  function update(state, row, place, newReach) {
    reach = newReach;
    const value = row.logits[place];
    const fixed = state.kind === "binary" && place === 0;
    const called = state.names[place] || String(place);
    if (document.activeElement !== name) name.value = state.names[place];
    if (document.activeElement !== typed) {
      typed.value = short(value).replace("−", "-");
      mark(typed, "aria-invalid", null);
    }
    const { trace } = traced(state);
    show(p, trace.p[place], `${short(trace.exp[place])} / ${short(trace.expSum)} = ${short(trace.p[place])}`);
    mark(slider, "data-how", p.dataset.how);
    write(amountText, `y ${short(row.label[place])}`);
    mark(typed, "aria-label", `logit of ${called}`);
    mark(slider, "aria-label", `logit of ${called}`);
    mark(slider, "aria-valuemin", -reach);
    mark(slider, "aria-valuemax", reach);
    mark(slider, "aria-valuenow", value);
    mark(slider, "aria-valuetext", short(value));
    mark(slider, "aria-disabled", fixed);
    slider.classList.toggle("fixed", fixed);
    typed.disabled = fixed;
    stand(fill, handle, value, reach);
    label.checked = row.index === place;
    mark(label, "aria-label", `the label is ${called}`);
    amount.valueAsNumber = row.label[place];
    mark(amount, "aria-label", `share of the label of ${called}`);
    mark(element, "data-label", row.label[place] > 0 && !row.ignored);
    remove.hidden = state.names.length <= LEAST_CLASSES || state.kind === "binary" || row.rest !== null;
    mark(remove, "aria-label", `remove ${called}`);
  }
}

/** The bar between zero, in the middle, and the value. */
function stand(fill, handle, value, reach) {
  const height = 50 * Math.min(1, Math.max(-1, value / reach));
  fill.style.bottom = `${Math.min(50, 50 + height)}%`;
  fill.style.height = `${Math.abs(height)}%`;
  handle.style.bottom = `${50 + height}%`;
  fill.classList.toggle("below", height < 0);
}

/** The pointer's height becomes a logit, as long as it is held. */
function drag(slider, reach, set) {
  const move = (event) => {
    const box = slider.getBoundingClientRect();
    const value = (1 - (2 * (event.clientY - box.top)) / box.height) * Number(slider.dataset.held);
    set(Math.round(value * 100) / 100);
  };
  slider.addEventListener("pointerdown", (event) => {
    if (slider.classList.contains("fixed")) return;
    slider.setPointerCapture(event.pointerId);
    slider.dataset.held = reach();
    slider.focus();
    event.preventDefault();
    move(event);
    slider.addEventListener("pointermove", move);
    slider.addEventListener("lostpointercapture", () => {
      slider.removeEventListener("pointermove", move);
      delete slider.dataset.held;
    }, { once: true });
  });
}

function choose(row, c) {
  row.index = c;
  row.ignored = false;
  row.label = oneHot(row.logits.length, c);
}

function soften(store, soft) {
  store.change((state, row) => {
    const likeliest = row.label.indexOf(Math.max(...row.label));
    if (!soft) choose(row, likeliest);
    else {
      row.index = null;
      row.label = share(row.label, likeliest, 0.7);
    }
    if (state.kind !== "binary") state.kind = soft ? "probabilities" : "index";
    if (state.kind !== "binary") state.rows.forEach((other) => alike(other, soft));
  });
}

/** All rows of a batch have labels of one kind. */
function alike(row, soft) {
  if (soft) row.index = null;
  else if (row.index === null) choose(row, row.label.indexOf(Math.max(...row.label)));
}

function add(store) {
  store.change((state) => {
    state.names.push(`class ${state.names.length}`);
    state.classCount += 1;
    if (state.weight !== null) state.weight.push(1);
    state.rows.forEach((row) => {
      row.logits.push(0);
      row.label.push(0);
    });
  });
}

function drop(store, c) {
  store.change((state) => {
    state.names.splice(c, 1);
    state.classCount -= 1;
    state.weight?.splice(c, 1);
    for (const row of state.rows) {
      row.logits.splice(c, 1);
      row.label.splice(c, 1);
      if (row.index !== null) choose(row, Math.max(0, row.index > c || row.index === row.logits.length ? row.index - 1 : row.index));
      else if (!row.ignored) {
        const left = sum(row.label);
        row.label = left > 0 ? row.label.map((q) => q / left) : oneHot(row.label.length, 0);
      }
    }
  });
}
