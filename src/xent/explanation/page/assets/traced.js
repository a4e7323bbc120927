// One calculation for each state, however many panels show it.

import { traceBatch } from "./mathematics.js";

const KNOWN = new WeakMap();

/** The batch, the row that is looked at, and its trace. */
export function traced(state) {
  if (!KNOWN.has(state)) {
    const batch = traceBatch(state.rows, state);
    const row = state.rows[state.current];
    KNOWN.set(state, { batch, row, trace: batch.traces[state.current] });
  }
  return KNOWN.get(state);
}

/** Which logits descent may move: of a yes-or-no pair only the second. */
export function free(state) {
  return (c) => state.kind !== "binary" || c === 1;
}

/** The class that the label names: the likeliest one of a soft label. */
export function labelled(row) {
  return row.index ?? row.label.indexOf(Math.max(...row.label));
}
