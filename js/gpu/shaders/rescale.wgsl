// Makes the state of a head what the core expects of one: stored numbers of at most 1 and a power of two beside them. A workgroup a head;
// run before a state is read back.

struct Scale { scale: f32, bound: f32 }

const LANES: u32 = 128u;
const QUADS: u32 = HEADDIM * D_STATE / 4u;

@group(0) @binding(0) var<storage, read_write> state: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> scales: array<Scale>;

var<workgroup> largest: array<f32, LANES>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let start = group.x * QUADS;
  let before = scales[group.x].scale;
  var own = 0.0;
  for (var i = lane; i < QUADS; i += LANES) {
    let value = abs(state[start + i]);
    own = max(own, max(max(value.x, value.y), max(value.z, value.w)));
  }
  largest[lane] = own;
  workgroupBarrier();
  var most = 0.0;
  for (var i = 0u; i < LANES; i++) { most = max(most, largest[i]); }
  // A power of two above `most`, within what the core allows. WGSL's quotients need not be exact, not even of those; ldexp is.
  let power = clamp(select(-100, frexp(most).exp, most > 0.0), -100, 100);
  let inverse = ldexp(1.0, -power);
  for (var i = lane; i < QUADS; i += LANES) { state[start + i] *= inverse; }
  // All lanes have read it.
  storageBarrier();
  if (lane == 0u) { scales[group.x] = Scale(before * ldexp(1.0, power), most * inverse); }
}
