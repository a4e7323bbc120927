// The mistake lab: what common mistakes do to the loss and to the gradient, on these numbers.

import { h, mark, write } from "../dom.js";
import { short } from "../numbers.js";
import { show, shown } from "../values.js";
import { softmax, sum, traceRow } from "../mathematics.js";
import { naive } from "../rounding.js";
import { labelled, traced } from "../traced.js";

const MISTAKES = {
  double: ["Softmax before the loss", "The loss takes logits and does the softmax itself. Given probabilities, it does it twice: they all lie in [0, 1], so the loss has a floor that no training gets below, and the gradient shrinks."],
  axis: ["Softmax over the wrong axis", "With dim=0 the rows of a batch share one cake instead of the classes of a row. Every class of a lone row gets p = 1."],
  half: ["exp by hand in half precision", "float16 ends at 65504: exp overflows above 11.09, ∞ / ∞ is NaN, and below −17 it is zero, whose logarithm is −∞."],
  ignored: ["All rows ignored", "A mean over nothing is 0 / 0: the loss of such a batch is NaN, and so is every average it enters. Torch's own gradient is 0 there; a mean divided by hand makes every weight of the network NaN."],
};

export function mount(root, store) {
  let chosen = "double";
  const tabs = Object.entries(MISTAKES).map(([key, [title]]) =>
    h("button", { type: "button", role: "tab", id: `tab-${key}`, "aria-controls": "mistake", "data-mistake": key, onclick: () => choose(key) }, title));
  const words = h("p", { class: "words" });
  const right = shown("page.loss_right");
  const wrong = shown("page.loss_wrong");
  const strengthRight = shown("page.gradient_right");
  const strengthWrong = shown("page.gradient_wrong");
  const floor = h("p", { class: "live" });
  const scale = gauge();
  root.append(
    h("div", { class: "row", role: "tablist", "aria-label": "mistakes" }, tabs),
    h("div", { id: "mistake", role: "tabpanel", tabindex: 0 }, words, scale.element,
      h("div", { class: "row sums" }, h("span", {}, "as it should be ", right), h("span", {}, "with the mistake ", wrong)),
      h("div", { class: "row sums" }, h("span", {}, "largest gradient ", strengthRight), h("span", {}, "with the mistake ", strengthWrong)), floor),
  );
  const choose = (key) => {
    chosen = key;
    draw(store.state);
  };
  root.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const place = tabs.indexOf(event.target);
    if (step === undefined || place < 0) return;
    const next = tabs[(place + step + tabs.length) % tabs.length];
    next.focus();
    choose(next.dataset.mistake);
  });
  const draw = (state) => {
    tabs.forEach((tab) => {
      mark(tab, "aria-selected", String(tab.dataset.mistake === chosen));
      mark(tab, "tabindex", tab.dataset.mistake === chosen ? 0 : -1);
    });
    write(words, MISTAKES[chosen][1]);
    const { row, trace } = traced(state);
    const effect = EFFECTS[chosen](state, row, trace);
    const largest = Math.max(...trace.gradient.map(Math.abs));
    show(right, trace.loss, "the loss of this row");
    show(wrong, effect.loss, effect.how);
    show(strengthRight, largest, "the largest |∂L/∂z| of this row");
    show(strengthWrong, effect.gradient, effect.gradientHow ?? "the largest |∂L/∂z| with the mistake");
    write(floor, effect.note);
    scale.update(trace.loss, effect);
  };
  store.listen(draw);
}

const EFFECTS = {
  double(state, row, trace) {
    const twice = traceRow({ ...row, logits: trace.p, rest: null }, { ...state, classCount: trace.p.length });
    const inner = twice.gradient;
    const mixed = sum(inner.map((g, c) => g * trace.p[c]));
    const outer = inner.map((g, c) => trace.p[c] * (g - mixed)); // through the first softmax
    const least = Math.log(1 + (trace.p.length - 1) / Math.E);
    return {
      loss: twice.loss, gradient: Math.max(...outer.map(Math.abs)), floor: least,
      how: "cross-entropy of softmax(softmax(z))",
      note: `The floor for ${trace.p.length} classes is log(1 + (C − 1)/e) = ${short(least)}, even for a certain and right prediction.`,
    };
  },
  axis(state, row, trace) {
    const own = labelled(row);
    const columns = state.names.map((_, c) => softmax(state.rows.map((each) => each.logits[c])).p[state.current]);
    const others = state.rows.length - 1;
    return {
      loss: row.ignored ? 0 : -Math.log(columns[own]),
      gradient: row.ignored ? 0 : 1 - columns[own],
      how: `−log of ${short(columns[own])}, the share of this row among all rows at the label`,
      note: `The classes of this row now sum to ${short(sum(columns))}, not to 1. ${others ? `The loss of this row depends on ${others} other row${others > 1 ? "s" : ""}.` : "Add rows to the batch above and watch it depend on them."}`,
    };
  },
  half(state, row) {
    const result = naive(row.logits, labelled(row), "float16");
    const own = labelled(row);
    const gradient = Math.max(...result.p.map((p, c) => Math.abs(p - (c === own ? 1 : 0))));
    const broken = !Number.isFinite(result.loss) || Number.isNaN(result.loss);
    return {
      loss: result.loss, gradient: result.p.some(Number.isNaN) ? NaN : gradient,
      how: `exp: ${result.exp.map(short).join(", ")}; their sum ${short(result.total)}`,
      note: broken ? "It broke on these numbers." : "These numbers survive it; type a logit of 12, or take the overflow preset.",
    };
  },
  ignored() {
    return { loss: NaN, gradient: 0, how: "0 / 0", note: "In xent, on_empty=\"zero\" makes it 0. By hand: divide the sum by max(count, 1)." };
  },
};

/** A scale from 0 on which the loss, the wrong loss and the floor stand. */
function gauge() {
  const words = { right: "as it should be", wrong: "with the mistake", floor: "the floor" };
  const marks = Object.fromEntries(Object.entries(words).map(([kind, text]) => [kind, h("i", { class: kind }, h("b", {}, text))]));
  const element = h("div", { class: "gauge", "aria-hidden": "true" }, marks.right, marks.wrong, marks.floor);
  return {
    element,
    update(loss, effect) {
      const most = Math.max(2, ...[loss, effect.loss].filter(Number.isFinite)) * 1.1;
      const put = (each, value) => {
        each.hidden = value === undefined || !Number.isFinite(value);
        each.style.left = `${(100 * (value || 0)) / most}%`;
        each.classList.toggle("far", value > most / 2); // its words go to the left
      };
      put(marks.right, loss);
      put(marks.wrong, effect.loss);
      put(marks.floor, effect.floor);
    },
  };
}
