// Why the wrong classes fall: ∂L/∂p beside ∂L/∂z = p − y, a guess first, and steps of descent.

import { h, mark, svg, write } from "../dom.js";
import { short, vector } from "../numbers.js";
import { show, shown } from "../values.js";
import { descent, traceRow } from "../mathematics.js";
import { free, labelled, traced } from "../traced.js";

const MOST_STEPS = 60;
const NUDGE = 0.1;

export function mount(root, store) {
  const table = h("div", { class: "pairs" });
  const total = shown("row.gradient_sum");
  const formula = h("p", { class: "live" });
  const guess = question(root);
  const walk = walking(store);
  root.append(
    h("p", { class: "words" }, "∂L/∂p asks what a probability by itself would change: nothing, at a class that the label does not name. " +
      "But the network sets logits, and they share one sum: ∂L/∂z reaches them all."),
    guess.element,
    h("div", { class: "after-guess" }, table, formula, h("p", {}, "Σ ∂L/∂z = ", total, ". Descent leaves the average of the logits where it is."), walk.element),
  );
  let rows = [];
  store.listen((state) => {
    const { row, trace } = traced(state);
    if (rows.length !== state.names.length) {
      rows = state.names.map((_, c) => pair(c));
      table.replaceChildren(heading(), ...rows.map((each) => each.element));
    }
    const scaleP = Math.max(1, ...trace.gradientP.map(Math.abs).filter(Number.isFinite));
    const scale = Math.max(1, ...trace.gradient.map(Math.abs).filter(Number.isFinite));
    rows.forEach((each, c) => each.update(state, trace, row, c, scaleP, scale));
    show(total, Math.abs(trace.gradientSum) < 1e-12 ? 0 : trace.gradientSum, "the sum of the gradients over all classes");
    const y = state.smoothing > 0 ? "target" : "y";
    const plain = state.weight === null ? `p − ${y}` : `(Σ weight · ${y}) · p − weight · ${y}`;
    write(formula, `∂L/∂z = ${plain} = ${vector(trace.gradient)}`);
    guess.update(state, row, trace);
    walk.update(state);
  });
}

function heading() {
  return h("div", { class: "pair head" }, h("span", {}, "class"), h("span", {}, "∂L/∂p"), h("span", {}, ""), h("span", {}, "∂L/∂z"), h("span", {}, ""), h("span", {}, "its logit goes"));
}

function pair(c) {
  const name = h("span", { class: "class-name" });
  const atP = shown("classes.gradient_p", c);
  const atZ = shown("classes.gradient", c);
  const [barP, barZ] = [bar(), bar()];
  const way = h("span", { class: "way" });
  const element = h("div", { class: "pair", "data-class": c }, name, atP, barP.element, atZ, barZ.element, way);
  return { element, update };

  function update(state, trace, row, place, scaleP, scale) {
    write(name, state.names[place] || String(place));
    mark(element, "data-label", row.label[place] > 0 && !row.ignored);
    const [g, gP] = [trace.gradient[place], trace.gradientP[place]];
    show(atP, gP, gP === 0 ? "no label here: this probability alone changes nothing" : `−${short(trace.mass[place])} / ${short(trace.p[place])} = ${short(gP)}`);
    show(atZ, g, `${short(trace.total)} · ${short(trace.p[place])} − ${short(trace.mass[place])} = ${short(g)}`);
    barP.set(gP / scaleP);
    barZ.set(g / scale);
    const fixed = !free(state)(place);
    write(way, fixed ? "fixed" : g === 0 || !Number.isFinite(g) ? "" : g < 0 ? "↑ up" : "↓ down");
  }
}

function bar() {
  const fill = h("i", {});
  const element = h("span", { class: "bar", "aria-hidden": "true" }, fill);
  return {
    element,
    set(share) {
      const part = Number.isFinite(share) ? 50 * Math.max(-1, Math.min(1, share)) : 0;
      fill.style.left = `${Math.min(50, 50 + part)}%`;
      fill.style.width = `${Math.abs(part)}%`;
      fill.classList.toggle("below", part > 0); // the colour is that of where the logit goes
    },
  };
}

/** Asks before it shows: what will a step of descent do to the likeliest wrong class? */
function question(root) {
  const asked = h("span", {});
  const said = h("p", { class: "verdict", tabindex: -1 });
  const reason = h("p", { class: "reason" });
  let guessed = null;
  let about = "";
  let right = "falls";
  let verdict = "";
  const reveal = (word) => () => {
    guessed = word;
    mark(root, "data-guessed", true);
    write(said, word === null ? verdict : `${word === right ? "Yes" : "Look"}: ${verdict}`);
    said.focus();
  };
  const choice = (word) => h("button", { type: "button", "data-guess": word, onclick: reveal(word) }, `its logit ${word}`);
  const skip = h("button", { type: "button", class: "quiet", onclick: reveal(null) }, "just show me");
  const element = h("div", { class: "guess" }, h("p", {}, asked), h("div", { class: "row" }, ["rises", "stays", "falls"].map(choice), skip),
    h("div", { class: "after-guess" }, said, reason));
  return {
    element,
    update(state, row, trace) {
      const own = labelled(row);
      const rival = rivalOf(trace, own);
      const [name, label] = [rival, own].map((c) => state.names[c] || String(c));
      const gradient = trace.gradient[rival];
      right = row.ignored || !(Math.abs(gradient) > 0) ? "stays" : gradient > 0 ? "falls" : "rises";
      const now = `${state.current} ${own} ${state.names.length}`;
      if (about !== now && guessed !== null) {
        guessed = null; // another label is another question
        mark(root, "data-guessed", false);
      }
      about = now;
      verdict = judged(row, trace, rival, name, right);
      write(asked, `The label is ${label}. One step of descent: what does the logit of ${name}, which has p = ${short(trace.p[rival])}, do?`);
      write(said, guessed === null ? verdict : `${guessed === right ? "Yes" : "Look"}: ${verdict}`);
      write(reason, row.ignored ? "" : because(state, row, trace, rival, name, label));
    },
  };
}

function rivalOf(trace, own) {
  const others = trace.p.map((p, c) => (c === own ? -1 : p));
  const found = others.indexOf(Math.max(...others));
  return found < 0 ? others.findIndex((_, c) => c !== own) : found; // no softmax: any will do
}

function judged(row, trace, rival, name, right) {
  if (row.ignored) return "this row is ignored, and nothing moves.";
  const share = trace.mass[rival];
  if (share === 0) return `the logit of ${name} ${right}, though the loss never reads its probability.`;
  return `the logit of ${name} ${right}: its share of the label is ${short(trace.target[rival])}, its p ${short(trace.p[rival])}.`;
}

/** Why, with numbers: the same row with this one logit a little higher. */
function because(state, row, trace, rival, name, label) {
  const logits = row.logits.map((x, c) => (c === rival ? x + NUDGE : x));
  const after = traceRow({ ...row, logits }, state);
  const own = labelled(row);
  const more = after.loss > trace.loss;
  return `If the logit of ${name} alone rose by ${NUDGE}, the sum that all are divided by would grow, the share of ${label} go from ` +
    `${short(trace.p[own])} to ${short(after.p[own])}, and the loss from ${short(trace.loss)} to ${short(after.loss)}. ` +
    `So descent moves it ${more ? "down" : "up"}.`;
}

/** Steps of descent on the row, one by one or in a row, and the lines that p draws. */
function walking(store) {
  const lines = svg("svg", { viewBox: "0 0 300 100", class: "lines", role: "img", "aria-label": "p of each class over the steps of descent", preserveAspectRatio: "none" });
  const key = h("div", { class: "key", "aria-hidden": "true" });
  const count = h("span", { class: "count" });
  const remark = h("p", { class: "words" });
  const size = h("input", { type: "range", id: "step-size", min: 0.1, max: 5, step: 0.1 });
  const speed = h("select", { id: "speed", "aria-label": "steps a second" }, [2, 5, 15].map((n) => h("option", { value: n, selected: n === 5 }, `${n} steps a second`)));
  const sizeText = h("span", {});
  const play = h("button", { type: "button", "data-do": "play" }, "Play");
  const step = h("button", { type: "button", "data-do": "step" }, "Step");
  const back = h("button", { type: "button", "data-do": "back" }, "Back to the start");
  let path = [];
  let timer = null;
  let expected = null;

  const stop = () => {
    clearInterval(timer);
    timer = null;
    write(play, "Play");
  };
  const forward = () => {
    if (path.length > MOST_STEPS) return stop();
    store.change((state, row) => {
      const next = descent(row, state, 1, state.stepSize, free(state))[1];
      row.logits = next.logits;
      expected = next.logits;
    });
  };
  play.addEventListener("click", () => {
    if (timer !== null) return stop();
    write(play, "Pause");
    expected = [...store.state.rows[store.state.current].logits];
    forward();
    timer = setInterval(forward, 1000 / Number(speed.value));
  });
  step.addEventListener("click", () => (stop(), forward()));
  back.addEventListener("click", () => {
    stop();
    if (path.length) store.change((_, row) => { row.logits = [...path[0].logits]; });
    path = [];
  });
  size.addEventListener("input", () => store.change((state) => { state.stepSize = size.valueAsNumber; }));
  const element = h(
    "div", { class: "walk" },
    h("div", { class: "row" }, step, play, back, h("label", { for: "step-size" }, "step size ", size, sizeText), speed, count),
    h("div", { class: "chart" }, lines, h("span", { class: "axis top" }, "p = 1"), h("span", { class: "axis bottom" }, "0")), key, remark,
  );
  return { element, update };

  function update(state) {
    const { row, trace } = traced(state);
    const own = expected !== null && row.logits.every((x, c) => x === expected[c]);
    if (!own) {
      path = []; // somebody else moved the logits
      if (timer !== null) stop();
    }
    const full = path.length > MOST_STEPS;
    [step, play].forEach((button) => { button.disabled = full; });
    const last = path[path.length - 1];
    if (last === undefined || last.logits.some((x, c) => x !== row.logits[c])) path.push({ logits: [...row.logits], p: trace.p });
    if (size.valueAsNumber !== state.stepSize) size.valueAsNumber = state.stepSize;
    write(sizeText, short(state.stepSize));
    const end = full ? ": back to the start to go on" : "";
    write(count, `${path.length - 1} steps, loss ${short(trace.loss)}${end}`);
    write(remark, passing(path, state, row));
    lines.replaceChildren(...trace.p.map((_, c) => svg("polyline", { points: points(path, c), "data-class": c, class: "line hue", "data-label": row.label[c] > 0 })));
    if (key.children.length !== state.names.length) {
      key.replaceChildren(...state.names.map((_, c) => h("span", { class: "hue", "data-class": c }, h("b", {}))));
    }
    state.names.forEach((name, c) => write(key.children[c].firstChild, name || String(c)));
  }
}

/** A wrong class whose p rose in the last step although its logit fell: say so, it looks wrong. */
function passing(path, state, row) {
  if (path.length < 2) return "";
  const [before, after] = path.slice(-2);
  const own = labelled(row);
  const c = after.p.findIndex((p, k) => k !== own && p > before.p[k] && after.logits[k] < before.logits[k]);
  if (c < 0) return "";
  return `The logit of ${state.names[c] || c} fell, and yet its p rose from ${short(before.p[c])} to ${short(after.p[c])}: a larger rival fell faster.`;
}

function points(path, c) {
  const width = Math.max(10, path.length - 1);
  if (path.some((step) => !Number.isFinite(step.p[c]))) return "";
  const whole = path.length > 1 ? path : [path[0], path[0]]; // a point, until there is a line
  return whole.map((step, n) => `${((300 * n) / width).toFixed(1)},${(98 - 96 * step.p[c]).toFixed(1)}`).join(" ");
}
