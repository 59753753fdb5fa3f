// RMSNorm folded with a column scale and the bias product of the binary layer behind it, a workgroup a token:
//   x[t][i] = r[t][i] * rstd * scale[i];   c[t] = rstd * sum_i r[t][i] * bias[i]
// inputs_*.wgsl has what is made of x.

const LANES: u32 = 128u;

@group(0) @binding(0) var<storage, read> r: array<f32>;
@group(0) @binding(1) var<storage, read> scale: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> c: array<f32>;

var<workgroup> sums: array<vec2f, LANES>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let start = group.x * D_MODEL;
  var own = vec2f(0.0);
  for (var i = lane; i < D_MODEL; i += LANES) {
    let value = r[start + i];
    own += vec2f(value * value, value * bias[i]);
  }
  sums[lane] = own;
  workgroupBarrier();
  var all = vec2f(0.0);
  for (var i = 0u; i < LANES; i++) { all += sums[i]; }
  let rstd = inverseSqrt(all.x / f32(D_MODEL) + NORM_EPS);
  for (var i = lane; i < D_MODEL; i += LANES) { x[start + i] = r[start + i] * rstd * scale[i]; }
  if (lane == 0u) { c[group.x] = rstd * all.y; }
  prepare_inputs(lane, group.x);
}
