// Why the wrong classes fall: ∂L/∂p beside ∂L/∂z = p − y, a guess first, and steps of descent.

import { h, mark, svg, write } from "../dom.js";
import { short, vector } from "../numbers.js";
import { show, shown } from "../values.js";
import { descent } from "../mathematics.js";
import { free, labelled, traced } from "../traced.js";

const MOST_STEPS = 60;

export function mount(root, store) {
  const table = h("div", { class: "pairs" });
  const total = shown("row.gradient_sum");
  const formula = h("p", { class: "live" });
  const guess = question(root);
  const walk = walking(store);
  root.append(
    h("p", { class: "words" }, "The loss reads the probability of the label alone. ∂L/∂p, what a probability by itself would " +
      "change, is zero at every other class. But the network sets logits, and they share one sum: ∂L/∂z reaches them all."),
    guess.element,
    h("div", { class: "after-guess" }, table, formula, h("p", {}, "Σ (p − y) = ", total, ". What one class gains, the others lose."), walk.element),
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
  return h("div", { class: "pair head" }, h("span", {}, "class"), h("span", {}, "∂L/∂p"), h("span", {}, ""), h("span", {}, "∂L/∂z"), h("span", {}, ""), h("span", {}, "descent"));
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
    write(way, g === 0 || !Number.isFinite(g) ? "" : g < 0 ? "↑ raises" : "↓ lowers");
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
      fill.classList.toggle("below", part < 0);
    },
  };
}

/** Asks before it shows: what will a step of descent do to the likeliest wrong class? */
function question(root) {
  const asked = h("span", {});
  const said = h("p", { class: "said", "aria-live": "polite" });
  let right = "falls";
  let rival = "";
  const answer = (word) => () => {
    mark(root, "data-guessed", true);
    const verdict = word === right ? "Yes" : "Look";
    write(said, `${verdict}: ${rival} ${right}, though the loss never reads its probability. Below is why.`);
  };
  const choice = (word) => h("button", { type: "button", "data-guess": word, onclick: answer(word) }, word);
  const skip = h("button", { type: "button", class: "quiet", onclick: () => mark(root, "data-guessed", true) }, "just show me");
  const element = h("div", { class: "guess" }, h("p", {}, asked), h("div", { class: "row" }, ["rises", "stays", "falls"].map(choice), skip), said);
  return {
    element,
    update(state, row, trace) {
      const own = labelled(row);
      const others = trace.p.map((p, c) => (c === own ? -1 : p));
      const place = others.indexOf(Math.max(...others));
      rival = state.names[place] || String(place);
      const gradient = trace.gradient[place];
      right = gradient > 0 ? "falls" : gradient < 0 ? "rises" : "stays";
      write(asked, `The label is ${state.names[own] || own}. One step of descent: what does the logit of ${rival}, which has p = ${short(trace.p[place])}, do?`);
    },
  };
}

/** Steps of descent on the row, one by one or in a row, and the lines that p draws. */
function walking(store) {
  const lines = svg("svg", { viewBox: "0 0 300 100", class: "lines", role: "img", "aria-label": "p of each class over the steps of descent", preserveAspectRatio: "none" });
  const key = h("div", { class: "key", "aria-hidden": "true" });
  const count = h("span", { class: "count" });
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
    h("div", { class: "chart" }, lines, h("span", { class: "axis top" }, "p = 1"), h("span", { class: "axis bottom" }, "0")), key,
  );
  return { element, update };

  function update(state) {
    const { row, trace } = traced(state);
    const own = expected !== null && row.logits.every((x, c) => x === expected[c]);
    if (!own) path = []; // somebody else moved the logits
    const last = path[path.length - 1];
    if (last === undefined || last.logits.some((x, c) => x !== row.logits[c])) path.push({ logits: [...row.logits], p: trace.p });
    if (size.valueAsNumber !== state.stepSize) size.valueAsNumber = state.stepSize;
    write(sizeText, short(state.stepSize));
    write(count, `${path.length - 1} steps, loss ${short(trace.loss)}`);
    lines.replaceChildren(...trace.p.map((_, c) => svg("polyline", { points: points(path, c), "data-class": c, class: "line hue" })));
    if (key.children.length !== state.names.length) {
      key.replaceChildren(...state.names.map((_, c) => h("span", { class: "hue", "data-class": c }, h("b", {}))));
    }
    state.names.forEach((name, c) => write(key.children[c].firstChild, name || String(c)));
  }
}

function points(path, c) {
  const width = Math.max(10, path.length - 1);
  return path.map((step, n) => `${((300 * n) / width).toFixed(1)},${(98 - 96 * step.p[c]).toFixed(1)}`).join(" ");
}
