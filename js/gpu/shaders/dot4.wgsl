// Sums of int8 codes with the WGSL feature packed_4x8_integer_dot_product; dot_plain.wgsl is for who has not got it. Codes of products: CODES 1.

const FOUR: u32 = 0x01010101u;

// The sum of those of 32 codes whose bit in `chosen` is set.
fn sum_of_chosen(low: vec4u, high: vec4u, chosen: u32) -> i32 {
  return dot4I8Packed(low.x, chosen & FOUR) + dot4I8Packed(low.y, (chosen >> 1u) & FOUR) +
    dot4I8Packed(low.z, (chosen >> 2u) & FOUR) + dot4I8Packed(low.w, (chosen >> 3u) & FOUR) +
    dot4I8Packed(high.x, (chosen >> 4u) & FOUR) + dot4I8Packed(high.y, (chosen >> 5u) & FOUR) +
    dot4I8Packed(high.z, (chosen >> 6u) & FOUR) + dot4I8Packed(high.w, (chosen >> 7u) & FOUR);
}

fn dot_of_four(a: u32, b: u32) -> i32 { return dot4I8Packed(a, b); }
