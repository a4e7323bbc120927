// Numerics: what a dtype can hold, and what log-softmax saves.

import { h, mark, write } from "../dom.js";
import { short } from "../numbers.js";
import { show, shown } from "../values.js";
import { DTYPES, naive, stable } from "../rounding.js";
import { labelled, traced } from "../traced.js";

export function mount(root, store) {
  const dtype = h("select", { id: "dtype" }, Object.keys(DTYPES).map((name) => h("option", { value: name, selected: name === "float32" }, name)));
  const way = h("select", { id: "way" }, h("option", { value: "naive" }, "log(softmax(z)), by the book"), h("option", { value: "stable" }, "log_softmax(z), the largest first"));
  const offset = h("input", { type: "range", id: "offset", min: -200, max: 200, step: 1, value: 0 });
  const offsetText = h("span", {});
  const body = h("tbody", {});
  const total = shown("page.numeric_sum");
  const loss = shown("page.numeric_loss");
  const exact = shown("page.numeric_exact");
  const verdict = h("p", { class: "live", "aria-live": "polite" });
  root.append(
    h("p", { class: "words" }, "In mathematics log(softmax(z)) and log_softmax(z) are the same, and adding one number to every logit changes nothing. " +
      "In a dtype they are not: add, and see what breaks."),
    h("div", { class: "row" }, h("label", { for: "dtype" }, "dtype ", dtype), h("label", { for: "way" }, "computed as ", way),
      h("label", { for: "offset" }, "add to every logit ", offset, offsetText)),
    h("div", { class: "wide" }, h("table", {}, h("thead", {}, h("tr", {}, ["class", "logit", "exp", "p"].map((text) => h("th", { scope: "col" }, text)))), body)),
    h("div", { class: "row sums" }, h("span", {}, "Σ exp ", total), h("span", {}, "loss ", loss), h("span", {}, "exact ", exact)), verdict,
  );
  let rows = [];
  const draw = (state) => {
    const { row, trace } = traced(state);
    if (rows.length !== state.names.length) {
      rows = state.names.map((_, c) => line(c));
      body.replaceChildren(...rows.map((each) => each.element));
    }
    const logits = row.logits.map((x) => x + offset.valueAsNumber);
    const own = labelled(row);
    const result = (way.value === "naive" ? naive : stable)(logits, own, dtype.value);
    write(offsetText, ` ${short(offset.valueAsNumber)}`);
    rows.forEach((each, c) => each.update(state, logits, result, dtype.value, c));
    show(total, result.total, `Σ of the exponentials, rounded to ${dtype.value} at each step`);
    show(loss, result.loss, `−log p of ${state.names[own]} in ${dtype.value}`);
    show(exact, -trace.logP[own], "the same in float64, with log-softmax");
    write(verdict, judged(result.loss, -trace.logP[own], dtype.value));
  };
  [dtype, way, offset].forEach((control) => control.addEventListener("input", () => draw(store.state)));
  store.listen(draw);
}

function line(c) {
  const name = h("th", { scope: "row" });
  const [logit, exp, p] = ["page.numeric_logit", "page.numeric_exp", "page.numeric_p"].map((field) => shown(field, c));
  const element = h("tr", { "data-class": c }, name, [logit, exp, p].map((output) => h("td", {}, output)));
  return { element, update };

  function update(state, logits, result, dtype, place) {
    const { round, largest } = DTYPES[dtype];
    write(name, state.names[place] || String(place));
    mark(element, "data-broken", !Number.isFinite(result.exp[place]) || Number.isNaN(result.p[place]));
    show(logit, round(logits[place]), `${short(logits[place])}, as ${dtype} holds it`);
    show(exp, result.exp[place], result.exp[place] === Infinity ? `more than ${short(largest)}, the largest ${dtype}` : `rounded to ${dtype}`);
    show(p, result.p[place], `${short(result.exp[place])} / ${short(result.total)}`);
  }
}

function judged(loss, exact, dtype) {
  if (Number.isNaN(loss)) return `NaN: exp overflowed in ${dtype}, and ∞ / ∞ is no number.`;
  if (!Number.isFinite(loss)) return `∞: the probability of the label became 0 in ${dtype}, and log 0 is −∞.`;
  const error = Math.abs(loss - exact);
  if (error === 0) return "Exact.";
  return `Off by ${short(error)} nats${exact > 0 ? `, ${short((100 * error) / exact)} % of the loss` : ""}.`;
}
