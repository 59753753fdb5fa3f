// The binary product: y[t][o] = c[t] + sum_i s[o, i] * x[t][i], and with ADD y += that.
// Signs as the file has them, row after row: bit i % 32 of word i / 32, set means +1. ROWS rows and TILE tokens a workgroup; a lane takes
// every LANES-th word of 32 columns for all of them. Grid: rows / ROWS, tokens / TILE.

struct Chunk { tokens: u32, position: u32, token: u32 }

const LANES: u32 = 64u;
const WORDS: u32 = COLS / 32u;
const SUMS: u32 = ROWS * TILE;

@group(0) @binding(0) var<storage, read> signs: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> c: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<uniform> chunk: Chunk;

var<workgroup> sums: array<f32, SUMS * LANES>;

fn signed(value: vec4f, word: u32, bit: u32) -> vec4f {
  return select(-value, value, (vec4u(word >> bit) & vec4u(1u, 2u, 4u, 8u)) != vec4u(0u));
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first = group.x * ROWS;
  let first_token = group.y * TILE;
  let tokens = min(TILE, chunk.tokens - first_token);
  for (var i = 0u; i < SUMS; i++) { sums[i * LANES + lane] = 0.0; }
  for (var k = lane; k < WORDS; k += LANES) {
    for (var t = 0u; t < tokens; t++) {
      let at = ((first_token + t) * WORDS + k) * 8u;
      let x0 = x[at];
      let x1 = x[at + 1u];
      let x2 = x[at + 2u];
      let x3 = x[at + 3u];
      let x4 = x[at + 4u];
      let x5 = x[at + 5u];
      let x6 = x[at + 6u];
      let x7 = x[at + 7u];
      for (var i = 0u; i < ROWS; i++) {
        let w = signs[min(first + i, OUT_ROWS - 1u) * WORDS + k];
        let sum = (signed(x0, w, 0u) + signed(x1, w, 4u)) + (signed(x2, w, 8u) + signed(x3, w, 12u)) +
          ((signed(x4, w, 16u) + signed(x5, w, 20u)) + (signed(x6, w, 24u) + signed(x7, w, 28u)));
        sums[(t * ROWS + i) * LANES + lane] += (sum.x + sum.y) + (sum.z + sum.w);
      }
    }
  }
  workgroupBarrier();
  for (var i = lane; i < SUMS; i += LANES) {
    let row = first + i % ROWS;
    let token = first_token + i / ROWS;
    if (row >= OUT_ROWS || i / ROWS >= tokens) { continue; }
    var sum = c[token];
    for (var k = 0u; k < LANES; k++) { sum += sums[i * LANES + k]; }
    if (ADD) { sum += y[token * OUT_ROWS + row]; }
    y[token * OUT_ROWS + row] = sum;
  }
}
