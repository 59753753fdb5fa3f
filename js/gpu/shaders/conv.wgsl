// The causal depthwise convolution and its SiLU, in place, a lane a channel, tokens in order. A channel's history is a ring of
// D_CONV - 1 inputs: that of position p is in row p % (D_CONV - 1). `position` is that of the chunk's first token.

struct Chunk { tokens: u32, position: u32, token: u32 }

const HISTORY: u32 = D_CONV - 1u;

@group(0) @binding(0) var<storage, read_write> zxbcdt: array<f32>;
@group(0) @binding(1) var<storage, read_write> ring: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<uniform> chunk: Chunk;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let channel = id.x;
  if (channel >= CONV_DIM) { return; }
  for (var t = 0u; t < chunk.tokens; t++) {
    let at = t * IN_ROWS + D_INNER + channel;
    let input = zxbcdt[at];
    var value = bias[channel];
    for (var k = 0u; k < HISTORY; k++) {
      let row = (chunk.position + t + k) % HISTORY;
      value += weight[channel * D_CONV + k] * ring[row * CONV_DIM + channel];
    }
    value += weight[channel * D_CONV + HISTORY] * input;
    ring[((chunk.position + t) % HISTORY) * CONV_DIM + channel] = input;
    zxbcdt[at] = value / (1.0 + exp(min(-value, 80.0)));
  }
}
