// The input of an int8 head as integers: of the one token whose logits are wanted, which becomes token 0 of `act`. One workgroup.

struct Chunk { tokens: u32, position: u32, token: u32 }

@group(0) @binding(0) var<storage, read> hidden: array<f32>;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<uniform> chunk: Chunk;

@compute @workgroup_size(128)
fn main(@builtin(local_invocation_index) lane: u32) {
  for (var i = lane; i < COLS; i += 128u) { x[i] = hidden[chunk.token * COLS + i]; }
  prepare_inputs(lane, 0u);
}
