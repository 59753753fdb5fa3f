// Sums of int8 codes with what every WebGPU has: each bit of all codes is counted where a sign chooses it. Codes of products: CODES 2.

// The sum of those of 32 codes whose bit in `chosen` is set; the last of the 8 bits is the sign's.
fn sum_of_chosen(low: vec4u, high: vec4u, chosen: u32) -> i32 {
  let a = vec4i(countOneBits(low & vec4u(chosen)));
  let b = vec4i(countOneBits(high & vec4u(chosen)));
  return (a.x + (a.y << 1u)) + ((a.z << 2u) + (a.w << 3u)) + ((b.x << 4u) + (b.y << 5u)) + ((b.z << 6u) - (b.w << 7u));
}

fn bytes_of(word: u32) -> vec4i {
  let i = bitcast<i32>(word);
  return vec4i(extractBits(i, 0u, 8u), extractBits(i, 8u, 8u), extractBits(i, 16u, 8u), extractBits(i, 24u, 8u));
}

fn dot_of_four(a: u32, b: u32) -> i32 {
  return dot(bytes_of(a), bytes_of(b));
}
