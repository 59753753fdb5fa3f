// What both recurrences have: the bindings but for the state itself, who computes what, and the step of a token.
// A head is a workgroup. A lane holds QUADS vectors of four numbers of each PASSES-th row in registers for all tokens.

struct Chunk { tokens: u32, position: u32, token: u32 }
struct Head { dt_bias: f32, a: f32, d: f32, unused: f32 }
struct Scale { scale: f32, bound: f32 }

const ROWS: u32 = LANES / ACROSS;
const PASSES: u32 = (HEADDIM + ROWS - 1u) / ROWS;
const QUADS: u32 = D_STATE / 4u / ACROSS;
const BC: u32 = N_GROUPS * D_STATE;

@group(0) @binding(0) var<storage, read> zxbcdt: array<f32>;
@group(0) @binding(2) var<storage, read_write> scales: array<Scale>;
@group(0) @binding(3) var<storage, read> heads: array<Head>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<uniform> chunk: Chunk;

var<workgroup> sums: array<f32, HEADDIM * ACROSS>;

fn quad_of(start: u32) -> vec4f {
  return vec4f(zxbcdt[start], zxbcdt[start + 1u], zxbcdt[start + 2u], zxbcdt[start + 3u]);
}

// log(1 + e^x) to a few units of the last place of what it is, however small. WGSL's log may be 2^-21 off near 1, and 1 + e^x itself loses what e^x is: a
// head that remembers long has steps of 1e-5. So it is 2 artanh(e / (2 + e)) of e = e^-|x|, whose argument is at most 1/3.
fn softplus(x: f32) -> f32 {
  let e = exp(-abs(x));
  let s = e / (2.0 + e);
  let z = s * s;
  let rest = z * (1.0 / 3.0 + z * (1.0 / 5.0 + z * (1.0 / 7.0 + z * (1.0 / 9.0 + z * (1.0 / 11.0 + z * (1.0 / 13.0))))));
  return max(x, 0.0) + 2.0 * (s + s * rest);
}

// dt of a head, for the token whose numbers begin at `token`.
fn step_of(h: u32, token: u32) -> f32 {
  return clamp(softplus(zxbcdt[token + IN_ROWS - N_HEADS + h] + heads[h].dt_bias), DT_MIN, DT_MAX);
}
