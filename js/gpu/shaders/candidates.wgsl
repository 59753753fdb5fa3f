// The largest logits, so that not all of them must be read back: all that are at least as large as a bound that `wanted` of them reach. One workgroup.
// A lane has every LANES-th logit. Of the lanes' largest ones the wanted-th is the bound: `wanted` lanes have at least one logit there, few have more.
// `found` is [how many there are, 1 where a logit is no number, the bits of the bound, 0], then pairs of id and bits of the logit in any order; those
// behind MOST are left out, but counted.

struct Chunk { tokens: u32, position: u32, token: u32, wanted: u32 }

const LANES: u32 = 256u;

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read_write> found: array<u32>;
@group(0) @binding(2) var<uniform> chunk: Chunk;

var<workgroup> largest: array<f32, LANES>;
var<workgroup> bound: f32;
var<workgroup> count: atomic<u32>;
var<workgroup> spoilt: atomic<u32>;

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_index) lane: u32) {
  var own = -3.4028234e38;
  for (var i = lane; i < arrayLength(&logits); i += LANES) {
    let value = logits[i];
    if ((bitcast<u32>(value) & 0x7f800000u) == 0x7f800000u) { atomicStore(&spoilt, 1u); }
    own = max(own, value);
  }
  largest[lane] = own;
  workgroupBarrier();
  // Ties go to the lower lane, so that one lane has each place.
  var place = 0u;
  for (var i = 0u; i < LANES; i++) {
    let other = largest[i];
    place += u32(other > own || (other == own && i < lane));
  }
  if (place + 1u == chunk.wanted) { bound = own; }
  workgroupBarrier();
  for (var i = lane; i < arrayLength(&logits); i += LANES) {
    let value = logits[i];
    if (value < bound) { continue; }
    let at = atomicAdd(&count, 1u);
    if (at >= MOST) { continue; }
    found[4u + 2u * at] = i;
    found[5u + 2u * at] = bitcast<u32>(value);
  }
  workgroupBarrier();
  if (lane == 0u) {
    found[0] = atomicLoad(&count);
    found[1] = atomicLoad(&spoilt);
    found[2] = bitcast<u32>(bound);
    found[3] = 0u;
  }
}
