// As sums_memory.wgsl, where subgroups have 8 lanes or more: neighbours add up their words among themselves. In which order does not matter, these are integers.

var<workgroup> sums: array<i32, SUMS * EIGHT>;

fn put_word(result: u32, lane: u32, sum: i32) {
  let two = sum + subgroupShuffleXor(sum, 1u);
  let four = two + subgroupShuffleXor(two, 2u);
  let eight = four + subgroupShuffleXor(four, 4u);
  if (lane % EIGHT == 0u) { sums[result * EIGHT + lane / EIGHT] = eight; }
}

fn add_words(lane: u32) {}
