// The bound that the core wants beside the scale of a head with its state in 16 bits: no stored number is larger. A workgroup a head;
// run before a state is read back.

struct Scale { scale: f32, bound: f32 }

@group(0) @binding(0) var<storage, read> units: array<f32>;
@group(0) @binding(1) var<storage, read> mosts: array<f32>;
@group(0) @binding(2) var<storage, read_write> scales: array<Scale>;

@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) group: vec3u) {
  var bound = 0.0;
  for (var p = group.x * HEADDIM; p < (group.x + 1u) * HEADDIM; p++) { bound = max(bound, units[p] * mosts[p]); }
  scales[group.x].bound = bound;
}
