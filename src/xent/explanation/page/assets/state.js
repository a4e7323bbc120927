// What the page is about: logits, labels, options. One object, changed in one place.

import { sum } from "./mathematics.js";

export const MOST_CLASSES = 8;
export const LEAST_CLASSES = 2;
const LONGEST_NAME = 60;
const MOST_ROWS = 6;

export const PRESETS = {
  "p = (0.1, 0.7, 0.2)": () => single(["cat", "dog", "bird"], [0.1, 0.7, 0.2].map(Math.log), 0),
  "a tie": () => single(["cat", "dog", "bird"], [1, 1, 1], 0),
  "confident and wrong": () => single(["cat", "dog", "bird"], [-4, 6, 0], 0),
  "confident and right": () => single(["cat", "dog", "bird"], [12, 0, -2], 0),
  overflow: () => single(["cat", "dog", "bird"], [1000, 990, 980], 1),
};

/** A fresh state of one row. */
export function single(names, logits, index) {
  return {
    kind: "index",
    names,
    classCount: names.length,
    rows: [rowOf(logits, index)],
    current: 0,
    weight: null,
    smoothing: 0,
    reduction: "mean",
    denominator: null,
    stepSize: 1,
  };
}

export function rowOf(logits, index) {
  return { logits, label: oneHot(logits.length, index), index, ignored: false, sampleWeight: 1, rest: null };
}

export function oneHot(count, index) {
  return Array.from({ length: count }, (_, c) => (c === index ? 1 : 0));
}

/** The state that Python embedded, or the first preset. */
export function embedded(text) {
  const given = JSON.parse(text || "null");
  if (given === null) return Object.values(PRESETS)[0]();
  const row = (r) => ({
    logits: r.logits.map(Number),
    label: r.label.map(Number),
    index: r.index,
    ignored: r.ignored,
    sampleWeight: Number(r.sample_weight),
    rest: restFrom(r.rest),
  });
  return {
    kind: given.kind,
    names: given.names,
    classCount: given.class_count,
    rows: given.rows.map(row),
    current: given.current,
    weight: given.weight === null ? null : given.weight.map(Number),
    smoothing: given.label_smoothing,
    reduction: given.reduction === "none" ? "mean" : given.reduction,
    denominator: given.denominator === null ? null : Number(given.denominator),
    stepSize: 1,
  };
}

/** The whole state in the address, to pass on. */
export function permalink(state) {
  return `#${encodeURIComponent(JSON.stringify({ v: 1, ...state }, unusual))}`;
}

/** The state in an address, checked piece by piece; null if there is none or it is not one. */
export function fromPermalink(hash) {
  if (hash.length < 2 || hash.length > 20000) return null;
  try {
    return checked(JSON.parse(decodeURIComponent(hash.slice(1))));
  } catch {
    return null;
  }
}

function unusual(_key, value) {
  return typeof value === "number" && !Number.isFinite(value) ? String(value) : value;
}

function checked(given) {
  const names = given.names.map((name) => String(name).slice(0, LONGEST_NAME));
  const count = names.length;
  require(given.v === 1 && count >= LEAST_CLASSES && count <= MOST_CLASSES + 1);
  require(given.rows.length >= 1 && given.rows.length <= MOST_ROWS);
  require(["index", "probabilities", "binary"].includes(given.kind));
  require(["mean", "sum"].includes(given.reduction));
  const rows = given.rows.map((row) => checkedRow(row, count));
  require(Number.isInteger(given.current) && given.current in rows);
  const hidden = rows[0].rest?.classes ?? 0;
  return {
    kind: given.kind,
    names,
    classCount: count + hidden,
    rows,
    current: given.current,
    weight: given.weight === null ? null : numbers(given.weight, count, 0),
    smoothing: within(given.smoothing, 0, 1),
    reduction: given.reduction,
    denominator: given.denominator === null ? null : within(given.denominator, 0, Infinity),
    stepSize: within(given.stepSize, 0, 100),
  };
}

function checkedRow(row, count) {
  const index = row.index;
  require(index === null || (Number.isInteger(index) && index >= 0 && index < count));
  const logits = row.logits.map(Number);
  require(logits.length === count && logits.every((x) => !Number.isNaN(x)));
  return {
    logits,
    label: numbers(row.label, count, 0),
    index,
    ignored: row.ignored === true,
    sampleWeight: within(row.sampleWeight, 0, Infinity),
    rest: restFrom(row.rest),
  };
}

/** The sums over the classes that are not shown, as Python writes them. */
function restFrom(given) {
  if (given === null) return null;
  require(Number.isInteger(given.classes) && given.classes > 0);
  const weighted = given.weighted === null ? null : allNumbers(given.weighted, ["weight", "sum", "label", "label_logit"]);
  return { classes: given.classes, ...allNumbers(given, ["max", "lse", "sum", "label", "label_logit"]), weighted };
}

function allNumbers(given, names) {
  const found = Object.fromEntries(names.map((name) => [name, Number(given[name])]));
  require(Object.values(found).every((value) => !Number.isNaN(value)));
  return found;
}

function numbers(values, count, least) {
  require(values.length === count);
  return values.map((value) => within(value, least, Infinity));
}

function within(value, least, most) {
  const number = Number(value);
  require(number >= least && number <= most);
  return number;
}

function require(condition) {
  if (!condition) throw new RangeError("not a state of this page");
}

/** One state for all panels: `change` edits a copy, then every panel is told once a frame. */
export function store(state) {
  const listeners = [];
  let current = state;
  let waiting = false;
  const tell = () => {
    waiting = false;
    listeners.forEach((listener) => listener(current));
  };
  return {
    get state() {
      return current;
    },
    change(edit) {
      current = structuredClone(current);
      edit(current, current.rows[current.current]);
      if (!waiting) requestAnimationFrame(tell);
      waiting = true;
    },
    listen(listener) {
      listeners.push(listener);
      listener(current);
    },
  };
}

/** Gives a class a share of a soft label; the others keep their proportions and the sum is 1. */
export function share(label, place, value) {
  const others = sum(label) - label[place];
  const even = (1 - value) / (label.length - 1);
  return label.map((q, c) => (c === place ? value : others > 0 ? (q / others) * (1 - value) : even));
}
