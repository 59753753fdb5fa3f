// The binary product of `fast`, with the integers of inputs_int8.wgsl: for each group of 256 columns in order, as the core does it (`matmul` of kernels.h),
//   y[t][o] = c[t] + sum_g d[t][g] * dot_g,   dot_g = 2 * (the sum of the codes whose sign is +1) - (the sum of all)
// and with ADD y += that. Signs as in matmul.wgsl. ROWS rows and TILE tokens a workgroup; LANES words of 32 columns, 8 groups, at a time.
// Grid: rows / ROWS, tokens / TILE.

struct Chunk { tokens: u32, position: u32, token: u32 }

const LANES: u32 = 64u;
const WORDS: u32 = COLS / 32u;
const GROUPS: u32 = (COLS + 255u) / 256u;
// Words of a group, and groups at a time.
const EIGHT: u32 = 8u;
const SUMS: u32 = ROWS * TILE;

@group(0) @binding(0) var<storage, read> signs: array<u32>;
@group(0) @binding(1) var<storage, read> act: array<vec4u>;
@group(0) @binding(2) var<storage, read> c: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> chunk: Chunk;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first = group.x * ROWS;
  let first_token = group.y * TILE;
  let tokens = min(TILE, chunk.tokens - first_token);
  // A lane has one of the results: SUMS <= LANES.
  let row = first + lane % ROWS;
  let token = first_token + lane / ROWS;
  let is_result = row < OUT_ROWS && lane / ROWS < tokens;
  var value = 0.0;
  if (is_result) { value = c[token]; }
  for (var start = 0u; start < WORDS; start += LANES) {
    let k = start + lane;
    for (var t = 0u; t < tokens; t++) {
      let at = (first_token + t) * (ACT_STRIDE / 4u) + 2u * k;
      var low = vec4u(0u);
      var high = vec4u(0u);
      if (k < WORDS) {
        low = act[at];
        high = act[at + 1u];
      }
      for (var i = 0u; i < ROWS; i++) {
        let w = signs[min(first + i, OUT_ROWS - 1u) * WORDS + min(k, WORDS - 1u)];
        put_word(t * ROWS + i, lane, sum_of_chosen(low, high, w));
      }
    }
    workgroupBarrier();
    add_words(lane);
    workgroupBarrier();
    for (var g = 0u; is_result && g < EIGHT && start / EIGHT + g < GROUPS; g++) {
      let pair = token * ACT_STRIDE + COLS / 4u + 2u * (start / EIGHT + g);
      let scale = bitcast<f32>(act[pair / 4u][pair % 4u]);
      let total = bitcast<i32>(act[pair / 4u][pair % 4u + 1u]);
      value += scale * f32(2 * sums[lane * EIGHT + g] - total);
    }
    // Read before the next words' are written.
    workgroupBarrier();
  }
  if (is_result) {
    if (ADD) { value = y[token * OUT_ROWS + row] + value; }
    y[token * OUT_ROWS + row] = value;
  }
}
