// The batch: rows, weights, ignored rows, smoothing, the reduction, and micro-batches.

import { h, mark, write } from "../dom.js";
import { parsed, short } from "../numbers.js";
import { show, shown } from "../values.js";
import { oneHot, rowOf } from "../state.js";
import { sum } from "../mathematics.js";
import { labelled, traced } from "../traced.js";

const MOST_ROWS = 6;

export function mount(root, store) {
  const body = h("tbody", {});
  const table = h("table", {}, h("thead", {}, h("tr", {}, ["row", "logits", "label", "ignored", "loss", "adds to the divisor"].map((text) => h("th", { scope: "col" }, text)))), body);
  const options = controls(store);
  const value = shown("batch.value");
  const divisor = shown("batch.divisor");
  const spelled = h("p", { class: "live" });
  const more = h("button", { type: "button", onclick: () => add(store) }, "Add a row");
  const split = splitter();
  root.append(
    h("p", { class: "words" }, "Each row has a loss. The mean adds them and divides once; what by is the question. Weights, and rows that are ignored, change it."),
    options.element, h("div", { class: "wide" }, table), h("div", { class: "row" }, more),
    h("p", { class: "result" }, "value ", value, " divisor ", divisor), spelled, split.element,
  );
  let rows = [];
  store.listen((state) => {
    const { batch } = traced(state);
    if (rows.length !== state.rows.length) {
      rows = state.rows.map((_, i) => line(store, i));
      body.replaceChildren(...rows.map((each) => each.element));
    }
    rows.forEach((each, i) => each.update(state, batch, i));
    options.update(state);
    more.disabled = state.rows.length >= MOST_ROWS || state.kind === "binary" || state.rows[0].rest !== null;
    spell(state, batch, value, divisor, spelled);
    split.update(state, batch);
  });
}

function spell(state, batch, value, divisor, spelled) {
  const losses = batch.traces.filter((_, i) => !state.rows[i].ignored).map((trace) => short(trace.loss)).join(" + ") || "0";
  const shares = batch.shares.filter((_, i) => !state.rows[i].ignored).map(short).join(" + ") || "0";
  show(value, batch.value, state.reduction === "sum" ? losses : `(${losses}) / (${shares})`);
  divisor.hidden = batch.divisor === null;
  show(divisor, batch.divisor ?? 1, state.denominator === null ? shares : "the number that was given");
  const empty = batch.divisor === 0 && Number.isNaN(batch.value);
  const ending = empty ? "NaN: nothing counts, and 0 / 0 is no number" : `${short(batch.value)} nats`;
  write(spelled, state.reduction === "sum" ? `sum = ${losses} = ${ending}` : `mean = (${losses}) / (${state.denominator === null ? shares : short(batch.divisor)}) = ${ending}`);
}

function line(store, i) {
  const chosen = h("input", { type: "radio", name: "current", "aria-label": `look at row ${i}` });
  const logits = h("td", { class: "logits" });
  const label = h("select", { "aria-label": `label of row ${i}` });
  const ignored = h("input", { type: "checkbox", "aria-label": `ignore row ${i}` });
  const loss = shown("positions.loss", i, "data-place");
  const share = shown("positions.share", i, "data-place");
  const remove = h("button", { type: "button", class: "remove", "aria-label": `remove row ${i}` }, "×");
  chosen.addEventListener("change", () => store.change((state) => { state.current = i; }));
  ignored.addEventListener("change", () => store.change((state) => { state.rows[i].ignored = ignored.checked; }));
  label.addEventListener("change", () => store.change((state) => {
    const row = state.rows[i];
    row.label = oneHot(row.logits.length, Number(label.value));
    if (row.index !== null) row.index = Number(label.value);
  }));
  remove.addEventListener("click", () => {
    store.change((state) => {
      state.rows.splice(i, 1);
      if (i < state.current) state.current -= 1;
      state.current = Math.min(state.current, state.rows.length - 1);
    });
    requestAnimationFrame(() => document.querySelector('[name="current"]:checked')?.focus());
  });
  const element = h("tr", {}, h("th", { scope: "row" }, h("label", {}, chosen, ` ${i}`)), logits, h("td", {}, label), h("td", {}, ignored), h("td", {}, loss), h("td", {}, share, remove));
  return { element, update };

  function update(state, batch, place) {
    const row = state.rows[place];
    const trace = batch.traces[place];
    chosen.checked = state.current === place;
    mark(element, "data-current", state.current === place);
    mark(element, "data-ignored", row.ignored);
    write(logits, row.logits.map(short).join("  "));
    const names = state.names.map((name, c) => name || String(c));
    if (label.options.length !== names.length || names.some((name, c) => label.options[c].text !== name)) {
      label.replaceChildren(...names.map((name, c) => h("option", { value: c }, name)));
    }
    label.value = row.ignored || Math.max(...row.label) > 0 ? String(labelled(row)) : ""; // else: a class not shown
    ignored.checked = row.ignored;
    remove.hidden = state.rows.length === 1;
    show(loss, trace.loss, row.ignored ? "ignored: it costs nothing" : `${trace.terms.map(short).join(" + ")} = ${short(trace.loss)}`);
    show(share, batch.shares[place], row.ignored ? "ignored: it does not count" : state.weight === null || row.index === null ? "one row" : `the class weight of ${names[row.index]}`);
  }
}

function controls(store) {
  const smoothing = h("input", { type: "range", id: "smoothing", min: 0, max: 1, step: 0.01 });
  const smoothed = h("span", {});
  const reduction = h("select", { id: "reduction" }, ["mean", "sum"].map((word) => h("option", { value: word }, word)));
  const weighted = h("input", { type: "checkbox", id: "weighted" });
  const weights = h("span", { class: "weights" });
  smoothing.addEventListener("input", () => store.change((state) => { state.smoothing = smoothing.valueAsNumber; }));
  reduction.addEventListener("change", () => store.change((state) => { state.reduction = reduction.value; }));
  weighted.addEventListener("change", () => store.change((state) => weigh(state, weighted.checked)));
  const element = h(
    "div", { class: "row" },
    h("label", { for: "smoothing" }, "label smoothing ε ", smoothing, smoothed),
    h("label", { for: "reduction" }, "reduction ", reduction),
    h("label", { for: "weighted" }, weighted, " class weights "), weights,
  );
  return { element, update };

  function update(state) {
    if (smoothing.valueAsNumber !== state.smoothing) smoothing.valueAsNumber = state.smoothing;
    write(smoothed, ` ${short(state.smoothing)}`);
    reduction.value = state.reduction;
    weighted.checked = state.weight !== null;
    const count = state.weight === null ? 0 : state.names.length;
    if (weights.children.length !== count) weights.replaceChildren(...Array.from({ length: count }, (_, c) => weight(store, c)));
    [...weights.children].forEach((input, c) => {
      if (document.activeElement !== input) {
        input.value = short(state.weight[c]);
        mark(input, "aria-invalid", null);
      }
      mark(input, "aria-label", `weight of ${state.names[c] || c}`);
    });
  }
}

/** Weights of 1 to begin with, for the classes that are not shown as well. */
function weigh(state, weighted) {
  state.weight = weighted ? state.names.map(() => 1) : null;
  for (const { rest } of state.rows) {
    if (rest === null) continue;
    const { classes, sum: logits, label, label_logit } = rest;
    rest.weighted = weighted ? { weight: classes, sum: logits, label, label_logit } : null;
  }
}

function weight(store, c) {
  const input = h("input", { type: "text", class: "typed", inputmode: "decimal" });
  input.addEventListener("change", () => {
    const value = parsed(input.value);
    const valid = value !== null && value >= 0 && Number.isFinite(value);
    mark(input, "aria-invalid", !valid);
    if (valid) store.change((state) => { if (state.weight !== null) state.weight[c] = value; });
  });
  return input;
}

function add(store) {
  store.change((state) => {
    const row = state.rows[state.current];
    const logits = row.logits.map((x) => Math.round((x + 4 * Math.random() - 2) * 10) / 10);
    const fresh = rowOf(logits, state.rows.length % logits.length);
    if (row.index === null) fresh.index = null;
    state.rows.push(fresh);
  });
}

/** Two micro-batches: the mean of their means beside the mean of all. */
function splitter() {
  const cut = h("input", { type: "range", id: "cut", min: 1, max: 5, step: 1, value: 1 });
  const text = h("p", { class: "live" });
  const wrong = shown("page.mean_of_means");
  const right = shown("page.mean");
  const element = h(
    "div", { class: "split" },
    h("h3", {}, "Gradient accumulation, and its mistake"),
    h("p", { class: "words" }, "Cut the batch into two micro-batches. The mean of their means is not the mean, unless both count the same. " +
      "Sum each, and divide by the count of all."),
    h("div", { class: "row" }, h("label", { for: "cut" }, "rows in the first ", cut)),
    text, h("div", { class: "row sums" }, h("span", {}, "mean of means ", wrong), h("span", {}, "the mean ", right)),
  );
  let last = null;
  cut.addEventListener("input", () => last && draw(...last));
  const draw = (state, batch) => {
    last = [state, batch];
    element.hidden = state.rows.length < 2;
    mark(cut, "max", Math.max(1, state.rows.length - 1));
    const at = cut.valueAsNumber;
    const mean = (from, to) => sum(batch.traces.slice(from, to).map((trace) => trace.loss)) / sum(batch.shares.slice(from, to));
    const parts = [mean(0, at), mean(at)];
    const empty = parts.some(Number.isNaN) ? " (all its rows are ignored: 0 / 0)" : "";
    write(text, `first ${short(parts[0])}, second ${short(parts[1])}${empty}`);
    show(wrong, (parts[0] + parts[1]) / 2, `(${short(parts[0])} + ${short(parts[1])}) / 2`);
    show(right, batch.total / sum(batch.shares), `${short(batch.total)} / ${short(sum(batch.shares))}`);
  };
  return { element, update: draw };
}
