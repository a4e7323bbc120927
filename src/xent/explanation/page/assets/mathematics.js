// The mathematics of the page. Every function is pure; losses are in nats, numbers are float64.
// The names are those of the library's trace, with which a test compares every number.

/** log Σ exp and its parts, over all classes and the rest that is not shown. */
export function softmax(logits, rest = null) {
  const maximum = Math.max(...logits, rest === null ? -Infinity : rest.max);
  const top = logits.indexOf(maximum); // −1 if it is not shown
  const shifted = logits.map((x) => x - maximum);
  const exp = shifted.map(Math.exp);
  const restExp = rest === null ? 0 : Math.exp(rest.lse - maximum);
  // Without the largest one's own 1: log1p keeps the digits of a near certainty.
  const hidden = top < 0 ? restExp - 1 : restExp;
  const others = exp.reduce((sum, e, c) => (c === top ? sum : sum + e), hidden);
  const own = top < 0 ? 1 : exp[top]; // 1, or NaN where there is no softmax
  const expSum = own + others;
  const logSum = own === 1 ? Math.log1p(others) : NaN;
  return {
    maximum, shifted, exp, expSum, lse: maximum + logSum,
    p: exp.map((e) => e / expSum),
    logP: shifted.map((s) => s - logSum),
    rest: { exp: restExp, p: restExp / expSum },
  };
}

/** mass · surprise, where what has no mass costs nothing, however impossible it is. */
function cost(mass, surprise) {
  return mass === 0 && surprise === Infinity ? 0 : mass * surprise;
}

/** A factor of zero leaves its sum out, whatever it is. */
function times(factor, total) {
  return factor === 0 ? 0 : factor * total;
}

/** One row from its logits to its gradient: the fields of the library's RowTrace. */
export function traceRow(row, options) {
  const count = options.classCount;
  const even = row.ignored ? 0 : options.smoothing / count;
  const sharp = row.ignored ? 0 : 1 - options.smoothing;
  const soft = softmax(row.logits, row.rest);
  const weight = options.weight ?? row.logits.map(() => 1);
  const label = row.ignored ? row.logits.map(() => 0) : row.label;
  const target = label.map((q) => sharp * q + even);
  const mass = target.map((t, c) => t * weight[c]);
  const rest = restOf(row, options, soft, sharp, even);
  const total = sum(mass) + rest.mass;
  const terms = mass.map((m, c) => cost(m, -soft.logP[c]));
  const loss = row.sampleWeight * (sum(terms) + rest.term);
  const crossEntropy = sum(target.map((t, c) => cost(t, -soft.logP[c]))) + rest.plain;
  const gradient = mass.map((m, c) => row.sampleWeight * slope(m, total, soft, c, mass, rest));
  return {
    ...soft, label, target, weight, mass, terms, total, loss, crossEntropy,
    bits: crossEntropy / Math.LN2,
    perplexity: Math.exp(crossEntropy),
    gradientP: mass.map((m, c) => (m === 0 ? 0 : (-row.sampleWeight * m) / soft.p[c])),
    gradient,
    gradientSum: sum(gradient) + row.sampleWeight * (total * soft.rest.p - rest.mass),
    rest: { ...soft.rest, ...rest, gradient: row.sampleWeight * (total * soft.rest.p - rest.mass) },
  };
}

/** total · p − mass at a class; where p is near 1, from the others, so that no digits cancel. */
function slope(own, total, soft, c, mass, rest) {
  if (Number.isNaN(soft.expSum)) return NaN;
  if (soft.p[c] < 0.5) return total * soft.p[c] - own;
  const others = sum(mass.filter((_, k) => k !== c)) + rest.mass;
  const notP = sum(soft.p.filter((_, k) => k !== c)) + soft.rest.p;
  return others - total * notP;
}

/** What the classes that are not shown add, from their sums: Σ v·target and Σ v·target·(−log p). */
function restOf(row, options, soft, sharp, even) {
  if (row.rest === null) return { mass: 0, term: 0, plain: 0, target: 0, classes: 0 };
  const { classes } = row.rest;
  const ones = { ...row.rest, weight: classes };
  const plain = restTerm(ones, soft, sharp, even);
  const weighted = options.weight === null ? plain : restTerm(row.rest.weighted, soft, sharp, even);
  return { mass: weighted.mass, term: weighted.term, plain: plain.term, target: plain.mass, classes };
}

function restTerm({ weight, sum: logits, label, label_logit: labelled }, soft, sharp, even) {
  const mass = times(sharp, label) + times(even, weight);
  return { mass, term: times(mass, soft.lse) - times(sharp, labelled) - times(even, logits) };
}

/** All rows and the value they are reduced to: the fields of the library's BatchTrace. */
export function traceBatch(rows, options) {
  const traces = rows.map((row) => traceRow(row, options));
  const shares = rows.map((row, i) => share(row, options, traces[i]));
  const total = sum(traces.map((trace) => trace.loss));
  const divisor = options.denominator ?? sum(shares);
  const mean = options.reduction === "mean";
  const value = options.reduction === "none" ? null : mean ? total / divisor : total;
  return { traces, shares, total, divisor: mean ? divisor : null, value };
}

/** What a row adds to torch's divisor: of an index its class weight; the binary loss counts. */
function share(row, options, trace) {
  if (row.ignored) return 0;
  if (options.kind === "binary") return 1;
  if (options.kind !== "index" || options.weight === null) return row.sampleWeight;
  const hidden = row.rest === null ? 0 : row.rest.weighted.label;
  return row.sampleWeight * (sum(trace.label.map((q, c) => q * options.weight[c])) + hidden);
}

/** The row after steps of gradient descent on its logits; step 0 is where it stands. */
export function descent(row, options, steps, stepSize, free = () => true) {
  const path = [];
  let logits = row.logits;
  for (let number = 0; number <= steps; number += 1) {
    const trace = traceRow({ ...row, logits }, options);
    path.push({ number, logits, loss: trace.loss, p: trace.p, rest: trace.rest.p });
    logits = logits.map((x, c) => (free(c) ? x - stepSize * trace.gradient[c] : x));
  }
  return path;
}

export function sigmoid(x) {
  return x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x));
}

/** y · (−log σ(x)) + (1 − y) · (−log σ(−x)), without cancellation. */
export function binaryLoss(x, y) {
  return cost(y, softplus(-x)) + cost(1 - y, softplus(x));
}

function softplus(x) {
  return Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
}

export function sum(values) {
  return values.reduce((total, value) => total + value, 0);
}
