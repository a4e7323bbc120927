// How numbers are written: as in the library's reports.

const MINUS = "−";

/** Four decimals, or the power of ten where they would say too little. */
export function number(value) {
  return special(value) ?? scientific(value) ?? signed(value.toFixed(4));
}

/** As in a sentence: four digits and no trailing zeros. */
export function short(value) {
  const odd = special(value) ?? scientific(value);
  if (odd !== null) return odd;
  const text = Math.abs(value) < 1 ? value.toFixed(4) : value.toPrecision(5);
  return signed(text.includes(".") ? text.replace(/\.?0+$/, "") : text);
}

export function vector(values) {
  return `(${values.map(short).join(", ")})`;
}

/** A typed number: comma or point, any minus sign, ∞ and inf; null if it is none. */
export function parsed(text) {
  const plain = text.trim().replace(/[−–]/g, "-").replace(",", ".");
  if (/^[+-]?(∞|inf(inity)?)$/i.test(plain)) return plain.startsWith("-") ? -Infinity : Infinity;
  if (!/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(plain)) return null;
  const value = Number(plain);
  return Number.isFinite(value) ? value : null;
}

function special(value) {
  if (Number.isNaN(value)) return "NaN";
  if (value === Infinity) return "∞";
  return value === -Infinity ? `${MINUS}∞` : null;
}

function scientific(value) {
  const size = Math.abs(value);
  if (size < 1e5 && (size >= 5e-4 || size === 0)) return null;
  return signed(value.toExponential(2).replace("e+", "e"));
}

function signed(text) {
  const plain = /^-[0.]*$/.test(text) ? text.slice(1) : text;
  return plain.replaceAll("-", MINUS);
}
