// The sums of words of 32 columns become those of groups of 256, 8 words, by way of the workgroup's memory. sums_subgroups.wgsl is the other way.

var<workgroup> words: array<i32, SUMS * LANES>;
var<workgroup> sums: array<i32, SUMS * EIGHT>;

fn put_word(result: u32, lane: u32, sum: i32) { words[result * LANES + lane] = sum; }

// By a whole workgroup, behind a barrier.
fn add_words(lane: u32) {
  for (var i = lane; i < SUMS * EIGHT; i += LANES) {
    var sum = 0;
    for (var word = 0u; word < EIGHT; word++) { sum += words[i * EIGHT + word]; }
    sums[i] = sum;
  }
}
