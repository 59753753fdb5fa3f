// r[t] = embedding[ids[t]], for the ids of this segment of the table. Grid: quads of columns / 64, tokens.

@group(0) @binding(3) var<storage, read> ids: array<u32>;
@group(0) @binding(4) var<storage, read_write> r: array<vec4f>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let quad = group.x * 64u + lane;
  let row = ids[group.y] - segment.first;
  if (quad >= D_MODEL / 4u || row >= segment.count) { return; }
  r[group.y * (D_MODEL / 4u) + quad] = weights(row, quad) * row_scale(row);
}
