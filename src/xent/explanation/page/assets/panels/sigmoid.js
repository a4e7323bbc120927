// The same logits through softmax and through sigmoid: one cake, or a yes and no for each.

import { h, mark, write } from "../dom.js";
import { short } from "../numbers.js";
import { show, shown } from "../values.js";
import { binaryLoss, sigmoid, sum } from "../mathematics.js";
import { traced } from "../traced.js";

export function mount(root, store) {
  const list = h("div", { class: "beside" });
  const shared = shown("page.softmax_sum");
  const alone = shown("page.sigmoid_sum");
  const cross = shown("page.softmax_loss");
  const binary = shown("page.sigmoid_loss");
  const nudge = h("button", { type: "button", onclick: () => raise(store) }, "Raise the last logit by 1");
  const reading = h("p", { class: "words", "aria-live": "polite" });
  root.append(
    h("p", { class: "words" }, "Softmax shares one cake: raise one logit, and every other class gets less. Sigmoid asks each class by " +
      "itself, yes or no: raise one, and it alone moves. (A sigmoid is the softmax over the pair 0 and x.)"),
    list,
    h("div", { class: "row sums" }, h("span", {}, "softmax sums to ", shared), h("span", {}, "sigmoid sums to ", alone), nudge),
    h("div", { class: "row sums" }, h("span", {}, "cross-entropy ", cross, " nats: exactly one class is true"),
      h("span", {}, "binary cross-entropy, summed ", binary, " nats: any number may be")),
    reading,
  );
  let rows = [];
  let before = null;
  store.listen((state) => {
    const { row, trace } = traced(state);
    if (rows.length !== state.names.length) {
      rows = state.names.map((_, c) => pair(c));
      list.replaceChildren(heading(), ...rows.map((each) => each.element));
    }
    const odds = row.logits.map(sigmoid);
    rows.forEach((each, c) => each.update(state, row, trace, odds, c));
    show(shared, sum(trace.p) + trace.rest.p, "the sum of the softmax over all classes: always 1");
    show(alone, sum(odds), odds.map(short).join(" + "));
    show(cross, trace.crossEntropy, "Σ target · (−log softmax)");
    show(binary, sum(row.logits.map((x, c) => binaryLoss(x, row.label[c]))), "Σ over the classes of −y·log σ(x) − (1−y)·log σ(−x)");
    write(reading, compared(before, { p: trace.p, odds }));
    before = { p: trace.p, odds };
  });
}

/** How many probabilities moved since the last state. */
function compared(before, now) {
  if (before === null || before.p.length !== now.p.length) return "";
  const moved = (a, b) => a.filter((value, c) => value !== b[c]).length;
  const [soft, alone] = [moved(before.p, now.p), moved(before.odds, now.odds)];
  return soft + alone === 0 ? "" : `The last change moved ${soft} of the softmax's probabilities, and ${alone} of the sigmoid's.`;
}

function heading() {
  return h("div", { class: "pair two head" }, ["class", "softmax", "", "sigmoid", ""].map((text) => h("span", {}, text)));
}

function pair(c) {
  const name = h("span", { class: "class-name" });
  const soft = shown("classes.p", c);
  const alone = shown("page.sigmoid", c);
  const [softBar, aloneBar] = [h("i", {}), h("i", { class: "other" })];
  const bar = (fill) => h("span", { class: "bar from-left", "aria-hidden": "true" }, fill);
  const element = h("div", { class: "pair two", "data-class": c }, name, soft, bar(softBar), alone, bar(aloneBar));
  return { element, update };

  function update(state, row, trace, odds, place) {
    write(name, state.names[place] || String(place));
    mark(element, "data-label", row.label[place] > 0 && !row.ignored);
    show(soft, trace.p[place], `${short(trace.exp[place])} / ${short(trace.expSum)} = ${short(trace.p[place])}`);
    show(alone, odds[place], `1 / (1 + exp(−(${short(row.logits[place])}))) = ${short(odds[place])}`);
    softBar.style.width = `${100 * (trace.p[place] || 0)}%`;
    aloneBar.style.width = `${100 * (odds[place] || 0)}%`;
  }
}

function raise(store) {
  store.change((_, row) => { row.logits[row.logits.length - 1] += 1; });
}
