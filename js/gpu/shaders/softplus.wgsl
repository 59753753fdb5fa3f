// log(1 + e^x) to a few units of the last place of what it is, however small. WGSL's log may be 2^-21 off near 1, and 1 + e^x itself loses what e^x is: a
// head that remembers long has steps of 1e-5. So it is 2 artanh(e / (2 + e)) of e = e^-|x|, whose argument is at most 1/3.
fn softplus(x: f32) -> f32 {
  let e = exp(-abs(x));
  let s = e / (2.0 + e);
  let z = s * s;
  let rest = z * (1.0 / 3.0 + z * (1.0 / 5.0 + z * (1.0 / 7.0 + z * (1.0 / 9.0 + z * (1.0 / 11.0 + z * (1.0 / 13.0))))));
  return max(x, 0.0) + 2.0 * (s + s * rest);
}
