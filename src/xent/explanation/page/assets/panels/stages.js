// From logits to the loss, stage by stage: a sentence, a formula, the line of Python, the numbers.

import { h, math, mark, write } from "../dom.js";
import { short } from "../numbers.js";
import { show, shown } from "../values.js";
import { labelled, traced } from "../traced.js";

const sub = (base, index) => ["msub", ["mi", base], ["mi", index]];
const exp = (power) => ["msup", ["mi", "e"], power];

// Of each stage: its name on the page and in the trace, a sentence, the formula, the Python.
const STAGES = [
  ["logits z", "logit", "What the network put out: any numbers. Larger means likelier.",
    [sub("z", "c")], "z = logits"],
  ["z − max", "shifted", "The largest is taken off. That changes no share, and exp cannot overflow.",
    [sub("z", "c"), ["mo", "−"], ["mi", "max"], ["mi", "z"]], "s = z - z.max()"],
  ["exp", "exp", "Every number becomes positive, and differences become ratios.",
    [exp(["mrow", ["msub", ["mi", "z"], ["mi", "c"]], ["mo", "−"], ["mi", "max"]])], "e = s.exp()"],
  ["÷ Σ = p", "p", "Each is divided by the sum of all: shares of one cake. This is softmax.",
    [["mfrac", sub("e", "c"), ["mrow", ["msub", ["mo", "Σ"], ["mi", "k"]], sub("e", "k")]]], "p = e / e.sum(-1)"],
  ["log p", "log_p", "The logarithm: 0 for a certainty, far below 0 for what is held unlikely.",
    [["mi", "log"], sub("p", "c")], "log_p = s - e.sum(-1).log()"],
  ["× y", "term", "The label multiplies −log p: it keeps the surprise where it is 1, and erases it where it is 0.",
    [["mo", "−"], sub("y", "c"), ["mi", "log"], sub("p", "c")], "terms = -y * log_p"],
];

// What the classes that are not shown add to a stage.
const RESTS = { exp: (rest) => rest.exp, p: (rest) => rest.p, term: (rest) => rest.term };

const FIELDS = {
  logit: (t, row) => row.logits, shifted: (t) => t.shifted, exp: (t) => t.exp, p: (t) => t.p,
  log_p: (t) => t.logP, term: (t) => t.terms,
};

export function mount(root, store) {
  const cards = h("div", { class: "cards" });
  const total = shown("row.exp_sum");
  const loss = shown("row.loss");
  const formula = h("p", { class: "live" });
  const value = shown("batch.value");
  const how = h("p", { class: "live" });
  const play = h("button", { type: "button", onclick: () => collapse(cards) }, "Play sum(-1)");
  root.append(cards);
  let columns = [];
  let count = 0;
  store.listen((state) => {
    if (count !== state.names.length) {
      count = state.names.length;
      columns = STAGES.map((stage) => card(stage, count));
      const ending = [
        lastCard("Σ over classes", "The sum over the classes, the last axis, leaves one number: the loss of this row.",
          [["msub", ["mo", "Σ"], ["mi", "c"]], ["mo", "−"], sub("y", "c"), ["mi", "log"], sub("p", "c")], "loss = terms.sum(-1)", loss, formula, play),
        lastCard("mean", "The losses of all rows are added and divided once.",
          [["mfrac", ["mrow", ["mo", "Σ"], ["mi", "loss"]], ["mi", "N"]]], "loss.mean()", value, how),
      ];
      cards.replaceChildren(...columns.map((each) => each.element), ...ending);
      columns[2].element.append(h("p", { class: "live" }, "Σ = ", total));
    }
    draw(state, columns, { total, loss, formula, value, how });
  });
}

function draw(state, columns, outputs) {
  const { batch, row, trace } = traced(state);
  const own = labelled(row);
  columns.forEach((column) => {
    const values = FIELDS[column.field](trace, row);
    column.cells.forEach(({ name, output, cell }, c) => {
      write(name, state.names[c] || String(c));
      show(output, values[c], told(column.field, c, row, trace, state));
      mark(cell, "data-label", row.label[c] > 0 && !row.ignored);
      cell.classList.toggle("nothing", column.field === "term" && values[c] === 0);
    });
    const others = row.rest !== null && column.field in RESTS;
    column.rest.cell.hidden = !others;
    if (others) {
      write(column.rest.name, `${row.rest.classes} others`);
      show(column.rest.output, RESTS[column.field](trace.rest), `the ${row.rest.classes} classes that are not shown, together`);
    }
    write(column.live, row.ignored ? "ignored" : told(column.field, own, row, trace, state));
  });
  show(outputs.total, trace.expSum, `${trace.exp.map(short).join(" + ")} = ${short(trace.expSum)}`);
  show(outputs.loss, trace.loss, `${trace.terms.map(short).join(" + ")} = ${short(trace.loss)} nats`);
  write(outputs.formula, row.ignored ? "an ignored row costs nothing" : `${short(trace.loss)} nats = ${short(trace.bits)} bits`);
  const losses = batch.traces.map((each) => short(each.loss)).join(" + ");
  const reading = state.reduction === "sum" ? losses : `(${losses}) / ${short(batch.divisor)}`;
  show(outputs.value, batch.value, reading);
  write(outputs.how, `= ${reading}`);
}

/** How a number came about, with the numbers it came from. */
function told(field, c, row, trace, state) {
  const name = state.names[c] || String(c);
  const weight = state.weight === null ? "" : `${short(trace.weight[c])} · `;
  return {
    logit: `the logit of ${name}: ${short(row.logits[c])}`,
    shifted: `${short(row.logits[c])} − (${short(trace.maximum)}) = ${short(trace.shifted[c])}`,
    exp: `exp(${short(trace.shifted[c])}) = ${short(trace.exp[c])}`,
    p: `${short(trace.exp[c])} / ${short(trace.expSum)} = ${short(trace.p[c])}`,
    log_p: `${short(trace.shifted[c])} − log ${short(trace.expSum)} = ${short(trace.logP[c])}`,
    term: `${weight}${short(trace.target[c])} · ${short(-trace.logP[c])} = ${short(trace.terms[c])}`,
  }[field];
}

function card([title, field, sentence, formula, python], count) {
  const live = h("p", { class: "live" });
  const cells = Array.from({ length: count }, (_, c) => {
    const name = h("span", { class: "class-name" });
    const output = shown(`classes.${field}`, c);
    return { name, output, cell: h("li", { "data-class": c }, name, output) };
  });
  const rest = { name: h("span", { class: "class-name" }), output: shown(`rest.${field}`) };
  rest.cell = h("li", { class: "others" }, rest.name, rest.output);
  const element = h(
    "article", { class: "card", "data-stage": field },
    h("h3", {}, title), h("p", { class: "words" }, sentence), h("p", { class: "maths" }, math(...formula)),
    h("code", { class: "maths" }, python), h("ul", { class: "cells" }, cells.map((each) => each.cell), rest.cell), live,
  );
  return { field, cells, rest, live, element };
}

function lastCard(title, sentence, formula, python, output, live, button = null) {
  return h(
    "article", { class: "card ending" },
    h("h3", {}, title), h("p", { class: "words" }, sentence), h("p", { class: "maths" }, math(...formula)),
    h("code", { class: "maths" }, python), h("p", { class: "result" }, output), live, button,
  );
}

/** The products without a label fade, then the column falls into its sum. */
function collapse(cards) {
  cards.classList.remove("collapsing");
  requestAnimationFrame(() => requestAnimationFrame(() => cards.classList.add("collapsing")));
  setTimeout(() => cards.classList.remove("collapsing"), 2600);
}
