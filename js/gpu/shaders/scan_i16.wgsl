// scan.wgsl with the state in 16 bits, as the core has it (`scan_i16` of src/kernels/kernels.h): S[p,n] = scale * unit[p] * state[p,n], a power of two and
// the largest integer `most` for each row p. A token's decay goes into `scale`, so that integers do not fade away by rounding. For each token:
//   a row makes room (`bm_row_room`), then   v[n] = state[p,n] * keep + input * B[n];   y[p] = scale * unit[p] * sum_n v[n] C[n] + D x[p];   state[p,n] = v[n], rounded
// recurrence.wgsl has the rest.

struct Row { unit: f32, keep: f32, input: f32, most: f32 }

// Below this the scale becomes 1 again, and the integers change once.
const LEAST_SCALE: f32 = 0x1p-60f;

@group(0) @binding(1) var<storage, read_write> state: array<vec2u>;
@group(0) @binding(6) var<storage, read_write> units: array<f32>;
@group(0) @binding(7) var<storage, read_write> mosts: array<f32>;

var<workgroup> rows: array<Row, HEADDIM>;
var<workgroup> peaks: array<f32, HEADDIM * ACROSS>;
var<workgroup> b_peaks: array<f32, ACROSS>;

fn unpacked(two: vec2u) -> vec4f {
  let i = bitcast<vec2i>(two);
  return vec4f(vec4i(extractBits(i.x, 0u, 16u), i.x >> 16u, extractBits(i.y, 0u, 16u), i.y >> 16u));
}

fn packed_quad(v: vec4f) -> vec2u {
  let i = bitcast<vec4u>(vec4i(v));
  return vec2u((i.x & 0xffffu) | (i.y << 16u), (i.z & 0xffffu) | (i.w << 16u));
}

fn largest_of(v: vec4f) -> f32 { return max(max(abs(v.x), abs(v.y)), max(abs(v.z), abs(v.w))); }

// The exponent, as f32 has it, of the least power of two that is at least x, within what the core allows.
fn exponent_at_least(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  return clamp((bits >> 23u) + u32((bits & 0x7fffffu) != 0u), 27u, 227u);
}

fn with_room(row: Row, x: f32, gain: f32, shrink: f32, b_max: f32) -> Row {
  let old = row.unit * shrink;
  let added = x * gain;
  let need = row.most * old + abs(added) * b_max;
  let fits = shrink == 1.0 && old >= 0x1p-100f && need <= 32766.0 * old && 4096.0 * old <= need;
  let exponent = select(exponent_at_least(need * 0x1p-14f), bitcast<u32>(old) >> 23u, fits);
  let inverse = bitcast<f32>((254u - exponent) << 23u);
  // Beside a B that is 0, or next to it, the least unit would make an infinity of x.
  let input = select(added * inverse, 0.0, b_max < 0x1p-100f);
  return Row(bitcast<f32>(exponent << 23u), select(0.0, old * inverse, row.most > 0.0), input, row.most);
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let h = group.x;
  let head = heads[h];
  let column = lane % ACROSS;
  let row = lane / ACROSS;
  let start = h * HEADDIM * (D_STATE / 4u);
  var scale = scales[h].scale;
  var s: array<vec4f, PASSES * QUADS>;
  for (var pass_ = 0u; pass_ < PASSES; pass_++) {
    let p = pass_ * ROWS + row;
    if (p >= HEADDIM || row >= ROWS) { continue; }
    for (var q = 0u; q < QUADS; q++) {
      s[pass_ * QUADS + q] = unpacked(state[start + p * (D_STATE / 4u) + q * ACROSS + column]);
    }
  }
  // A row's numbers are read and written by one lane, but for `keep` and `input`.
  for (var p = lane; p < HEADDIM; p += LANES) {
    rows[p] = Row(units[h * HEADDIM + p], 0.0, 0.0, mosts[h * HEADDIM + p]);
  }
  for (var t = 0u; t < chunk.tokens; t++) {
    let token = t * IN_ROWS;
    let dt = step_of(h, token);
    scale *= exp(dt * head.a);
    let is_low = !(scale >= LEAST_SCALE);
    let shrink = select(1.0, scale, is_low);
    scale = select(scale, 1.0, is_low);
    let b = token + 2u * D_INNER + h / (N_HEADS / N_GROUPS) * D_STATE;
    let x = token + D_INNER + h * HEADDIM;
    if (row == 0u) {
      var peak = 0.0;
      for (var q = 0u; q < QUADS; q++) { peak = max(peak, largest_of(quad_of(b + 4u * (q * ACROSS + column)))); }
      b_peaks[column] = peak;
    }
    // The first row's lanes have written what all of a row's first lanes read.
    workgroupBarrier();
    for (var p = lane; p < HEADDIM; p += LANES) {
      var b_max = 0.0;
      for (var i = 0u; i < ACROSS; i++) { b_max = max(b_max, b_peaks[i]); }
      rows[p] = with_room(rows[p], zxbcdt[x + p], dt / scale, shrink, b_max);
    }
    // Every row has room; its lanes read it.
    workgroupBarrier();
    for (var pass_ = 0u; pass_ < PASSES; pass_++) {
      let p = pass_ * ROWS + row;
      if (p >= HEADDIM || row >= ROWS) { continue; }
      let own = rows[p];
      var sum = 0.0;
      var peak = 0.0;
      for (var q = 0u; q < QUADS; q++) {
        let at = 4u * (q * ACROSS + column);
        let next = s[pass_ * QUADS + q] * own.keep + own.input * quad_of(b + at);
        sum += dot(next, quad_of(b + BC + at));
        let kept = clamp(round(next), vec4f(-32768.0), vec4f(32767.0));
        s[pass_ * QUADS + q] = kept;
        peak = max(peak, largest_of(kept));
      }
      sums[p * ACROSS + column] = sum;
      peaks[p * ACROSS + column] = peak;
    }
    // Every lane has written its part of its rows; now they are put together.
    workgroupBarrier();
    for (var p = lane; p < HEADDIM; p += LANES) {
      var sum = 0.0;
      var peak = 0.0;
      for (var i = 0u; i < ACROSS; i++) {
        sum += sums[p * ACROSS + i];
        peak = max(peak, peaks[p * ACROSS + i]);
      }
      y[t * D_INNER + h * HEADDIM + p] = scale * rows[p].unit * sum + head.d * zxbcdt[x + p];
      rows[p].most = peak;
    }
  }
  for (var pass_ = 0u; pass_ < PASSES; pass_++) {
    let p = pass_ * ROWS + row;
    if (p >= HEADDIM || row >= ROWS) { continue; }
    for (var q = 0u; q < QUADS; q++) {
      state[start + p * (D_STATE / 4u) + q * ACROSS + column] = packed_quad(s[pass_ * QUADS + q]);
    }
  }
  for (var p = lane; p < HEADDIM; p += LANES) {
    units[h * HEADDIM + p] = rows[p].unit;
    mosts[h * HEADDIM + p] = rows[p].most;
  }
  // All lanes have read it.
  storageBarrier();
  if (lane == 0u) { scales[h] = Scale(scale, 0.0); }
}
