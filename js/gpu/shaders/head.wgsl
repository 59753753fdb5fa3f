// logits[v] = scale[v] * sum_i hidden[i] * w[v, i], 8 rows a workgroup. Grid: rows of the segment / 8.

struct Chunk { tokens: u32, position: u32, token: u32 }

const ROWS: u32 = 8u;
const LANES: u32 = 64u;

@group(0) @binding(3) var<storage, read> hidden: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> logits: array<f32>;
@group(0) @binding(5) var<uniform> chunk: Chunk;

var<workgroup> sums: array<f32, ROWS * LANES>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first = group.x * ROWS;
  for (var i = 0u; i < ROWS; i++) { sums[i * LANES + lane] = 0.0; }
  for (var quad = lane; quad < D_MODEL / 4u; quad += LANES) {
    let x = hidden[chunk.token * (D_MODEL / 4u) + quad];
    for (var i = 0u; i < ROWS; i++) {
      let row = min(first + i, segment.count - 1u);
      sums[i * LANES + lane] += dot(weights(row, quad), x);
    }
  }
  workgroupBarrier();
  if (lane < ROWS && first + lane < segment.count && segment.first + first + lane < VOCAB) {
    var sum = 0.0;
    for (var i = 0u; i < LANES; i++) { sum += sums[lane * LANES + i]; }
    logits[segment.first + first + lane] = sum * row_scale(first + lane);
  }
}
