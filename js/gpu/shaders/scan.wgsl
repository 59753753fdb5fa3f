// The selective state space of one head, a workgroup, tokens in order (arXiv 2405.21060, equation 2):
//   S[p,n] = S[p,n] * exp(dt A) + dt x[p] B[n];   y[p] = sum_n S[p,n] C[n] + D x[p]
// The state is kept divided by a scale per head, as the core keeps it; here it becomes S itself, with scale 1.
// A lane holds QUADS vectors of four numbers of each PASSES-th row in registers for all tokens.

struct Chunk { tokens: u32, position: u32, token: u32 }
struct Head { dt_bias: f32, a: f32, d: f32, unused: f32 }
struct Scale { scale: f32, bound: f32 }

const ROWS: u32 = LANES / ACROSS;
const PASSES: u32 = (HEADDIM + ROWS - 1u) / ROWS;
const QUADS: u32 = D_STATE / 4u / ACROSS;
const BC: u32 = N_GROUPS * D_STATE;

@group(0) @binding(0) var<storage, read> zxbcdt: array<f32>;
@group(0) @binding(1) var<storage, read_write> state: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> scales: array<Scale>;
@group(0) @binding(3) var<storage, read> heads: array<Head>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<uniform> chunk: Chunk;

var<workgroup> sums: array<f32, HEADDIM * ACROSS>;

fn quad_of(start: u32) -> vec4f {
  return vec4f(zxbcdt[start], zxbcdt[start + 1u], zxbcdt[start + 2u], zxbcdt[start + 3u]);
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let h = group.x;
  let head = heads[h];
  let column = lane % ACROSS;
  let row = lane / ACROSS;
  let start = h * HEADDIM * (D_STATE / 4u);
  let scale = scales[h].scale;
  var s: array<vec4f, PASSES * QUADS>;
  for (var pass_ = 0u; pass_ < PASSES; pass_++) {
    let p = pass_ * ROWS + row;
    if (p >= HEADDIM || row >= ROWS) { continue; }
    for (var q = 0u; q < QUADS; q++) {
      s[pass_ * QUADS + q] = state[start + p * (D_STATE / 4u) + q * ACROSS + column] * scale;
    }
  }
  for (var t = 0u; t < chunk.tokens; t++) {
    let token = t * IN_ROWS;
    let raw = zxbcdt[token + IN_ROWS - N_HEADS + h] + head.dt_bias;
    let dt = clamp(softplus(raw), DT_MIN, DT_MAX);
    let decay = exp(dt * head.a);
    let b = token + 2u * D_INNER + h / (N_HEADS / N_GROUPS) * D_STATE;
    for (var pass_ = 0u; pass_ < PASSES; pass_++) {
      let p = pass_ * ROWS + row;
      if (p >= HEADDIM || row >= ROWS) { continue; }
      let gain = dt * zxbcdt[token + D_INNER + h * HEADDIM + p];
      var sum = 0.0;
      for (var q = 0u; q < QUADS; q++) {
        let at = 4u * (q * ACROSS + column);
        let next = s[pass_ * QUADS + q] * decay + gain * quad_of(b + at);
        s[pass_ * QUADS + q] = next;
        sum += dot(next, quad_of(b + BC + at));
      }
      sums[p * ACROSS + column] = sum;
    }
    workgroupBarrier();
    for (var p = lane; p < HEADDIM; p += LANES) {
      var sum = head.d * zxbcdt[token + D_INNER + h * HEADDIM + p];
      for (var i = 0u; i < ACROSS; i++) { sum += sums[p * ACROSS + i]; }
      y[t * D_INNER + h * HEADDIM + p] = sum;
    }
    workgroupBarrier();
  }
  for (var pass_ = 0u; pass_ < PASSES; pass_++) {
    let p = pass_ * ROWS + row;
    if (p >= HEADDIM || row >= ROWS) { continue; }
    for (var q = 0u; q < QUADS; q++) {
      state[start + p * (D_STATE / 4u) + q * ACROSS + column] = s[pass_ * QUADS + q];
    }
  }
  // All lanes have read it.
  storageBarrier();
  if (lane == 0u) { scales[h] = Scale(1.0, 0.0); }
}
