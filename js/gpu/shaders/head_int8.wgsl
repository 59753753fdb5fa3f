// The logits of `fast` from an int8 head: logits[v] = scale[v] * sum_g d[g] * sum_i q[i] * w[v, i], q and d of inputs_int8.wgsl, CODES 0.
// 8 rows a workgroup. Grid: rows of the segment / 8.

const ROWS: u32 = 8u;
const LANES: u32 = 64u;

@group(0) @binding(3) var<storage, read> act: array<u32>;
@group(0) @binding(4) var<storage, read_write> logits: array<f32>;

var<workgroup> sums: array<f32, ROWS * LANES>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first = group.x * ROWS;
  for (var i = 0u; i < ROWS; i++) { sums[i * LANES + lane] = 0.0; }
  for (var quad = lane; quad < D_MODEL / 4u; quad += LANES) {
    let q = act[quad];
    let scale = bitcast<f32>(act[D_MODEL / 4u + quad / 64u * 2u]);
    for (var i = 0u; i < ROWS; i++) {
      let row = min(first + i, segment.count - 1u);
      sums[i * LANES + lane] += scale * f32(dot_of_four(q, table[row * (D_MODEL / 4u) + quad]));
    }
  }
  workgroupBarrier();
  if (lane < ROWS && first + lane < segment.count && segment.first + first + lane < VOCAB) {
    var sum = 0.0;
    for (var i = 0u; i < LANES; i++) { sum += sums[lane * LANES + i]; }
    logits[segment.first + first + lane] = sum * row_scale(first + lane);
  }
}
