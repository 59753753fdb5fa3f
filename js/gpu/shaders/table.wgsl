// Rows of the embedding and the head, as the model's file has them: FORM 0 int8 with a scale per row, 1 f16, 2 f32.
// A table that is larger than a binding comes in segments; `segment` says which rows this one has.

struct Segment { first: u32, count: u32 }

@group(0) @binding(0) var<storage, read> table: array<u32>;
@group(0) @binding(1) var<storage, read> scales: array<f32>;
@group(0) @binding(2) var<uniform> segment: Segment;

fn signed_bytes(word: u32) -> vec4f {
  let i = bitcast<i32>(word);
  return vec4f(vec4i(extractBits(i, 0u, 8u), extractBits(i, 8u, 8u), extractBits(i, 16u, 8u), extractBits(i, 24u, 8u)));
}

// Four neighbouring weights of a row of this segment, without the row's scale.
fn weights(row: u32, quad: u32) -> vec4f {
  if (FORM == 0u) {
    return signed_bytes(table[row * (D_MODEL / 4u) + quad]);
  }
  if (FORM == 1u) {
    let at = row * (D_MODEL / 2u) + 2u * quad;
    return vec4f(unpack2x16float(table[at]), unpack2x16float(table[at + 1u]));
  }
  let at = row * D_MODEL + 4u * quad;
  return bitcast<vec4f>(vec4u(table[at], table[at + 1u], table[at + 2u], table[at + 3u]));
}

fn row_scale(row: u32) -> f32 {
  if (FORM == 0u) { return scales[segment.first + row]; }
  return 1.0;
}
