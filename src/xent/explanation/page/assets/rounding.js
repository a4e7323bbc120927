// Numbers as narrower dtypes hold them: each function rounds a float64 to the nearest, ties to even.

const VIEW = new DataView(new ArrayBuffer(4));

export const DTYPES = {
  float64: { round: (x) => x, largest: Number.MAX_VALUE, digits: 16 },
  float32: { round: Math.fround, largest: 3.4028234663852886e38, digits: 7 },
  bfloat16: { round: toBfloat16, largest: 3.3895313892515355e38, digits: 2 },
  float16: { round: toFloat16, largest: 65504, digits: 3 },
};

function toBfloat16(x) {
  if (!Number.isFinite(x)) return x;
  VIEW.setFloat32(0, x);
  const bits = VIEW.getUint32(0);
  const rounded = (bits + 0x7fff + ((bits >>> 16) & 1)) & 0xffff0000;
  VIEW.setUint32(0, rounded >>> 0);
  return VIEW.getFloat32(0);
}

function toFloat16(x) {
  if (!Number.isFinite(x) || x === 0) return x;
  const size = Math.abs(x);
  const exponent = Math.max(Math.floor(Math.log2(size)), -14);
  const unit = 2 ** (exponent - 10);
  const rounded = evenly(size / unit) * unit;
  return Math.sign(x) * (rounded > 65504 ? Infinity : rounded);
}

function evenly(x) {
  const below = Math.floor(x);
  const over = x - below;
  if (over !== 0.5) return Math.round(x);
  return below % 2 === 0 ? below : below + 1;
}

/** −log softmax by the book: exp, sum, divide, log, each step rounded to the dtype. */
export function naive(logits, index, dtype) {
  const { round } = DTYPES[dtype];
  const exp = logits.map((x) => round(Math.exp(round(x))));
  const total = exp.reduce((sum, e) => round(sum + e), 0);
  const p = exp.map((e) => round(e / total));
  return { exp, total, p, loss: round(-round(Math.log(p[index]))) };
}

/** The same with the largest logit taken off first, as log-softmax does. */
export function stable(logits, index, dtype) {
  const { round } = DTYPES[dtype];
  const maximum = Math.max(...logits.map(round));
  const shifted = logits.map((x) => round(round(x) - maximum));
  const exp = shifted.map((x) => round(Math.exp(x)));
  const total = exp.reduce((sum, e) => round(sum + e), 0);
  return { exp, total, p: exp.map((e) => round(e / total)), loss: round(round(Math.log(total)) - shifted[index]) };
}
