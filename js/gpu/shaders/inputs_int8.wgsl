// The inputs of a product as integers, those of the core to the bit (`quantize` of src/kernels/kernels.h, BM_FAST): for each 256 columns
//   d = max(max|x| / 127, max over 4 adjacent columns of (|x0| + |x1|) + (|x2| + |x3|) / 253);   q = x * (1 / d), to the nearest, ties to even
// 128 lanes, two groups of columns at a time, x [tokens][COLS]. An `act` is, for each token, ACT_STRIDE words:
//   codes [COLS / 4]: of 32 columns 8 words. CODES 0: columns 4j to 4j + 3 in word j; 1: columns j, 8 + j, 16 + j, 24 + j; 2: bit j of each q
//   (bits of the columns in order), so that the bits of a sign word choose among them
//   [COLS / 256] pairs of d and the sum of all q
// WGSL divides as it likes, so the two quotients are computed in integers. Beside a NaN or an infinity d is NaN.

const GROUPS: u32 = (COLS + 255u) / 256u;
const NAN: u32 = 0x7fc00000u;

@group(0) @binding(ACT) var<storage, read_write> act: array<u32>;

var<workgroup> peaks: array<vec2u, 128>;
var<workgroup> totals: array<i32, 128>;

// `kept` with its lowest `shift` bits rounded off, to the nearest, ties to even; `more`: there is something behind them.
fn rounded(kept: u32, shift: u32, more: bool) -> u32 {
  let high = kept >> shift;
  let rest = kept & ((1u << shift) - 1u);
  let half = 1u << (shift - 1u);
  return high + u32(rest > half || (rest == half && (more || (high & 1u) == 1u)));
}

// Bits of a positive f32, divided by n < 256; 0 where that is far below 2^-100.
fn divided(bits: u32, n: u32) -> u32 {
  let exponent = bits >> 23u;
  if (exponent < 30u) { return 0u; }
  let mantissa = ((bits & 0x7fffffu) | 0x800000u) << 8u;
  let low = (mantissa % n) << 4u;
  let quotient = ((mantissa / n) << 4u) | (low / n);
  let shift = firstLeadingBit(quotient) - 23u;
  return ((exponent + shift - 12u) << 23u) + (rounded(quotient, shift, low % n != 0u) - 0x800000u);
}

// Bits of 1 / a positive normal f32.
fn reciprocal(bits: u32) -> u32 {
  let exponent = bits >> 23u;
  let mantissa = (bits & 0x7fffffu) | 0x800000u;
  if (mantissa == 0x800000u) { return (254u - exponent) << 23u; }
  var rest = 0x1000000u;
  var quotient = 0u;
  for (var i = 0u; i < 26u; i++) {
    let fits = rest >= mantissa;
    quotient = (quotient << 1u) | u32(fits);
    rest = (rest - select(0u, mantissa, fits)) << 1u;
  }
  return ((253u - exponent) << 23u) + (rounded(quotient, 2u, rest != 0u) - 0x800000u);
}

fn code(value: f32, inverse: f32) -> i32 { return i32(round(value * inverse)); }

// Word `word` of the codes of the columns from x[start] on, and what it adds to the sum of all.
fn codes_of(start: u32, word: u32, inverse: f32) -> vec2u {
  var bits = 0u;
  var total = 0;
  let block = start + word / 8u * 32u;
  let j = word % 8u;
  if (CODES == 2u) {
    for (var i = 0u; i < 32u; i++) {
      let q = code(x[block + i], inverse);
      bits |= ((bitcast<u32>(q) >> j) & 1u) << i;
      total += select(0, q, j == 0u);
    }
  } else {
    for (var i = 0u; i < 4u; i++) {
      let q = code(x[block + select(4u * j + i, j + 8u * i, CODES == 1u)], inverse);
      bits |= (bitcast<u32>(q) & 0xffu) << (8u * i);
      total += q;
    }
  }
  return vec2u(bits, bitcast<u32>(total));
}

// By a whole workgroup, which has written x.
fn prepare_inputs(lane: u32, token: u32) {
  let half = lane & 64u;
  let own = lane & 63u;
  storageBarrier();
  workgroupBarrier();
  for (var first = 0u; first < GROUPS; first += 2u) {
    let group = first + half / 64u;
    let column = group * 256u + 4u * own;
    let at = token * COLS + column;
    let has = group < GROUPS && column < COLS;
    var peak = vec2u(0u);
    if (has) {
      let v = abs(vec4f(x[at], x[at + 1u], x[at + 2u], x[at + 3u]));
      // Bits of positive numbers order as the numbers do, and NaN above all.
      let bits = bitcast<vec4u>(v);
      peak = vec2u(max(max(bits.x, bits.y), max(bits.z, bits.w)), bitcast<u32>((v.x + v.y) + (v.z + v.w)));
    }
    peaks[lane] = peak;
    workgroupBarrier();
    for (var i = 0u; i < 64u; i++) { peak = max(peak, peaks[half + i]); }
    let is_number = max(peak.x, peak.y) < 0x7f800000u;
    let step = max(divided(peak.x, 127u), divided(peak.y, 253u));
    // 2^-100
    let is_empty = step < 0x0d800000u || !is_number;
    var made = vec2u(0u);
    if (has && !is_empty) { made = codes_of(token * COLS + group * 256u, own, bitcast<f32>(reciprocal(step))); }
    if (has) { act[token * ACT_STRIDE + group * 64u + own] = made.x; }
    totals[lane] = bitcast<i32>(made.y);
    workgroupBarrier();
    if (own == 0u && has) {
      var total = 0;
      for (var i = 0u; i < 64u; i++) { total += totals[half + i]; }
      let pair = token * ACT_STRIDE + COLS / 4u + 2u * group;
      act[pair] = select(select(step, 0u, is_empty), NAN, !is_number);
      act[pair + 1u] = bitcast<u32>(total);
    }
  }
}
