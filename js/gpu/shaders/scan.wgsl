// The selective state space of one head, a workgroup, tokens in order (arXiv 2405.21060, equation 2):
//   S[p,n] = S[p,n] * exp(dt A) + dt x[p] B[n];   y[p] = sum_n S[p,n] C[n] + D x[p]
// The state is kept divided by a scale per head, as the core keeps it; here it becomes S itself, with scale 1.
// recurrence.wgsl has the rest.

@group(0) @binding(1) var<storage, read_write> state: array<vec4f>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let h = group.x;
  let head = heads[h];
  let column = lane % ACROSS;
  let row = lane / ACROSS;
  let start = h * HEADDIM * (D_STATE / 4u);
  let scale = scales[h].scale;
  var s: array<vec4f, PASSES * QUADS>;
  for (var pass_ = 0u; pass_ < PASSES; pass_++) {
    let p = pass_ * ROWS + row;
    if (p >= HEADDIM || row >= ROWS) { continue; }
    for (var q = 0u; q < QUADS; q++) {
      s[pass_ * QUADS + q] = state[start + p * (D_STATE / 4u) + q * ACROSS + column] * scale;
    }
  }
  for (var t = 0u; t < chunk.tokens; t++) {
    let token = t * IN_ROWS;
    let dt = step_of(h, token);
    let decay = exp(dt * head.a);
    let b = token + 2u * D_INNER + h / (N_HEADS / N_GROUPS) * D_STATE;
    for (var pass_ = 0u; pass_ < PASSES; pass_++) {
      let p = pass_ * ROWS + row;
      if (p >= HEADDIM || row >= ROWS) { continue; }
      let gain = dt * zxbcdt[token + D_INNER + h * HEADDIM + p];
      var sum = 0.0;
      for (var q = 0u; q < QUADS; q++) {
        let at = 4u * (q * ACROSS + column);
        let next = s[pass_ * QUADS + q] * decay + gain * quad_of(b + at);
        s[pass_ * QUADS + q] = next;
        sum += dot(next, quad_of(b + BC + at));
      }
      sums[p * ACROSS + column] = sum;
    }
    workgroupBarrier();
    for (var p = lane; p < HEADDIM; p += LANES) {
      var sum = head.d * zxbcdt[token + D_INNER + h * HEADDIM + p];
      for (var i = 0u; i < ACROSS; i++) { sum += sums[p * ACROSS + i]; }
      y[t * D_INNER + h * HEADDIM + p] = sum;
    }
    workgroupBarrier();
  }
  for (var pass_ = 0u; pass_ < PASSES; pass_++) {
    let p = pass_ * ROWS + row;
    if (p >= HEADDIM || row >= ROWS) { continue; }
    for (var q = 0u; q < QUADS; q++) {
      state[start + p * (D_STATE / 4u) + q * ACROSS + column] = s[pass_ * QUADS + q];
    }
  }
  // All lanes have read it.
  storageBarrier();
  if (lane == 0u) { scales[h] = Scale(1.0, 0.0); }
}
