"""The chunked (SSD) form of the scan, after section 6 of the Mamba-2 paper. It checks the reference only.

Owns: the same map as Reference.scan, computed the other way round: inside a chunk as a masked, decayed
attention, between chunks through the state. Knows nothing of the rest of the block.

The idea: two forms that share no intermediate can only agree by being right. The trap of this form is the
mask: above the diagonal the differences of the cumulative sum are positive, their exp can be Inf, and
Inf * 0 is NaN; so the differences are clamped to <= 0 before exp.
"""

import numpy as np

from reference import Reference


def segment_decay(log_decay, clamp=True):
    """exp of the sum of log_decay over (j, i], lower triangle: [Q, H] -> [H, Q, Q]."""
    total = np.cumsum(log_decay, axis=0).T  # [H, Q]
    difference = total[:, :, None] - total[:, None, :]
    if clamp:
        difference = np.minimum(difference, 0.0)
    return np.exp(difference) * np.tri(total.shape[1], dtype=total.dtype)


class ChunkedReference(Reference):
    def __init__(self, model, chunk=256):
        super().__init__(model)
        self.chunk = chunk

    def scan(self, x, dt, a, b, c):
        state = np.zeros((x.shape[1], x.shape[2], b.shape[2]), x.dtype)  # [H, P, N]
        y = np.empty_like(x)
        for begin in range(0, len(x), self.chunk):
            q = slice(begin, begin + self.chunk)
            log_decay = dt[q] * a
            total = np.cumsum(log_decay, axis=0)  # [Q, H]
            v = dt[q][:, :, None] * x[q]
            scores = np.einsum('ihn,jhn->hij', c[q], b[q]) * segment_decay(log_decay)
            y[q] = np.einsum('hij,jhp->ihp', scores, v)
            y[q] += np.exp(total)[:, :, None] * np.einsum('ihn,hpn->ihp', c[q], state)
            to_end = np.exp(np.minimum(total[-1] - total, 0.0))
            state = np.exp(total[-1])[:, None, None] * state + np.einsum('jh,jhp,jhn->hpn', to_end, v, b[q])
        return y
