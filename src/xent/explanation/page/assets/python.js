// The state as a few lines of plain torch that compute the same numbers.

import { traced } from "./traced.js";

export function asPython(state) {
  const { batch, row } = traced(state);
  const dense = state.rows.some((each) => each.index === null);
  const lines = ["import torch", "import torch.nn.functional as F", "", `# classes: ${JSON.stringify(state.names)}`];
  if (row.rest !== null) {
    lines.push(`# The last logit stands for ${row.rest.classes} classes that are not shown.`);
  }
  const logits = state.rows.map((each) => [...each.logits, ...(each.rest === null ? [] : [each.rest.lse])]);
  lines.push(`logits = ${tensor(logits)}`);
  const label = (each) => [...each.label, ...(each.rest === null ? [] : [0])];
  lines.push(dense ? `target = ${tensor(state.rows.map(label))}` : `target = torch.tensor([${state.rows.map((each) => (each.ignored ? -100 : each.index)).join(", ")}])`);
  const options = [];
  if (state.weight !== null) {
    lines.push(`weight = ${tensor([...state.weight, ...(row.rest === null ? [] : [1])])}`);
    options.push("weight=weight");
  }
  if (state.smoothing > 0) options.push(`label_smoothing=${state.smoothing}`);
  lines.push(`losses = F.cross_entropy(${["logits", "target", ...options, 'reduction="none"'].join(", ")})`);
  const factors = state.rows.map((each) => (each.ignored ? 0 : each.sampleWeight));
  if (factors.some((factor) => factor !== 1)) lines.push(`losses = losses * ${tensor(factors)}`);
  lines.push(state.reduction === "sum" ? "loss = losses.sum()" : `loss = losses.sum() / ${literal(batch.divisor)}`);
  lines.push("print(losses, loss)");
  return `${lines.join("\n")}\n`;
}

function tensor(values) {
  return `torch.tensor(${nested(values)}, dtype=torch.float64)`;
}

function nested(value) {
  return Array.isArray(value) ? `[${value.map(nested).join(", ")}]` : literal(value);
}

function literal(value) {
  if (!Number.isFinite(value)) return `float("${Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf"}")`;
  return Number.isInteger(value) ? `${value}.0` : String(value);
}
