// The gate and the norm behind it, one group of d_inner / ngroups at a time, a workgroup a token:
//   v = y[t] * silu(z[t]);   x[t][i] = v[i] * rstd * scale[i];   c[t] = the sum over groups of rstd * sum_i v[i] * bias[i]
// inputs_*.wgsl has what is made of x.

const LANES: u32 = 128u;
const GROUP: u32 = D_INNER / N_GROUPS;

@group(0) @binding(0) var<storage, read> y: array<f32>;
@group(0) @binding(1) var<storage, read> zxbcdt: array<f32>;
@group(0) @binding(2) var<storage, read> scale: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> x: array<f32>;
@group(0) @binding(5) var<storage, read_write> c: array<f32>;

var<workgroup> sums: array<vec2f, LANES>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let start = group.x * D_INNER;
  let gate = group.x * IN_ROWS;
  var bias_sum = 0.0;
  for (var g = 0u; g < N_GROUPS; g++) {
    var own = vec2f(0.0);
    for (var i = g * GROUP + lane; i < (g + 1u) * GROUP; i += LANES) {
      let z = zxbcdt[gate + i];
      let value = y[start + i] * z / (1.0 + exp(min(-z, 80.0)));
      x[start + i] = value;
      own += vec2f(value * value, value * bias[i]);
    }
    workgroupBarrier();
    sums[lane] = own;
    workgroupBarrier();
    var all = vec2f(0.0);
    for (var i = 0u; i < LANES; i++) { all += sums[i]; }
    let rstd = inverseSqrt(all.x / f32(GROUP) + NORM_EPS);
    for (var i = g * GROUP + lane; i < (g + 1u) * GROUP; i += LANES) { x[start + i] *= rstd * scale[i]; }
    bias_sum += rstd * all.y;
  }
  if (lane == 0u) { c[group.x] = bias_sum; }
  prepare_inputs(lane, group.x);
}
