#!/usr/bin/python3
"""An independent reference of the Bi-Mamba forward pass: numpy, float64, recurrent form.

Owns the definition of right that every engine is compared with. Written from the Mamba-2 paper
(arXiv 2405.21060) and the Bi-Mamba paper (arXiv 2411.11843) alone, sharing no line with the engine; it
knows nothing of sign bits, integer activations, chunks or kernels.

The idea: one short method per equation, on dense matrices, in the order of the papers. What public
implementations get wrong is a method of its own here, and selftest.py shows for each of those mistakes
that the comparison would see it.

  reference.py MODEL --tokens 1,2,3 [--logits FILE] [--residuals FILE] [--dtype f64|f32]
  reference.py --batch JOBS.json     [{"model", "tokens", "logits"?, "residuals"?, "dtype"?, "traps"?}, ...]
  reference.py --self-test

MODEL is a checkpoint folder of the authors or a packed file. FILE gets little-endian floats: logits
[positions, vocab_size], unpadded; residuals [n_layer + 1, positions, d_model], entry 0 the embedding and
entry n the stream after layer n. One JSON line a job goes to standard output; a job with "traps": true
also says there how visible each mistake of traps.py is on this model and these tokens.
"""

import argparse
import json
import sys

import numpy as np

from modelfile import load_model


def silu(x):
    """x * sigmoid(x); the exponent is never positive, so nothing overflows."""
    e = np.exp(-np.abs(x))
    return x * np.where(x >= 0, 1.0, e) / (1.0 + e)


def softplus(x):
    """log(1 + exp(x)), right for large x and, relatively, for very negative x."""
    return np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))


class Reference:
    """The forward pass of one model. Methods take all T positions of one sequence at once."""

    def __init__(self, model):
        self.model = model
        self.config = model.config

    def forward(self, tokens):
        """Logits [T, vocab_size] and residuals [n_layer + 1, T, d_model] of a sequence from a fresh state."""
        c = self.config
        r = self.model.embedding[np.asarray(tokens)]
        residuals = [r]
        for layer in self.model.layers:
            r = r + self.mixer(layer, self.rms_norm(r) * layer.norm)
            residuals.append(r)
        logits = (self.rms_norm(r) * self.model.norm_f) @ self.model.head.T
        return logits[:, :c.vocab_size], np.stack(residuals)  # padded rows are not part of the model

    def mixer(self, layer, u):
        """One Mamba-2 block: u [T, d_model] -> [T, d_model]."""
        c = self.config
        z, xbc, dt = self.split_projection(u @ layer.w_in.T)
        xbc = silu(self.convolve(layer, xbc))  # x, B and C all pass through it
        x, b, cc = self.split_convolved(xbc)
        y = self.scan(x, self.step_size(layer, dt), self.decay_rate(layer), b, cc)
        y = y + layer.d[None, :, None] * x
        return self.gated_norm(layer, y.reshape(len(u), c.d_inner), z) @ layer.w_out.T

    def rms_norm(self, x):
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.config.norm_eps)

    def split_projection(self, zxbcdt):
        """Row order of in_proj: z, then x B C together, then one dt a head."""
        c = self.config
        return np.split(zxbcdt, [c.d_inner, c.d_inner + c.conv_dim], axis=-1)

    def convolve(self, layer, xbc):
        """Causal depthwise cross-correlation: the last tap meets the current token, before a start are zeros."""
        k = self.config.d_conv
        padded = np.concatenate([np.zeros((k - 1, xbc.shape[1])), xbc])
        out = np.zeros_like(xbc)
        for tap in range(k):
            out += layer.conv_w[:, tap] * padded[tap:tap + len(xbc)]
        return out + layer.conv_b

    def split_convolved(self, xbc):
        """x [T, H, P]; B and C [T, H, N], each head reading the group it belongs to."""
        c = self.config
        t = len(xbc)
        x, b, cc = np.split(xbc, [c.d_inner, c.d_inner + c.ngroups * c.d_state], axis=-1)
        groups = self.group_of_head()
        b = b.reshape(t, c.ngroups, c.d_state)[:, groups]
        cc = cc.reshape(t, c.ngroups, c.d_state)[:, groups]
        return x.reshape(t, c.n_heads, c.headdim), b, cc

    def group_of_head(self):
        """Neighbouring heads share a group: 0 0 1 1, not 0 1 0 1."""
        return np.arange(self.config.n_heads) // (self.config.n_heads // self.config.ngroups)

    def step_size(self, layer, dt):
        return np.clip(softplus(dt + layer.dt_bias), self.config.dt_min, self.config.dt_max)

    def decay_rate(self, layer):
        return -np.exp(layer.a_log)

    def scan(self, x, dt, a, b, c):
        """S = exp(dt a) S + dt x (outer) B; y = S . C.  x [T, H, P], dt [T, H], a [H], b and c [T, H, N]."""
        state = np.zeros((x.shape[1], x.shape[2], b.shape[2]))  # [H, P, N]
        y = np.empty_like(x)
        for t in range(len(x)):
            state *= np.exp(dt[t] * a)[:, None, None]
            state += (dt[t][:, None] * x[t])[:, :, None] * b[t][:, None, :]
            y[t] = np.matmul(state, c[t][:, :, None])[:, :, 0]
        return y

    def gated_norm(self, layer, y, z):
        """The gate comes before the norm, and each group of channels has a norm of its own."""
        t, g = len(y), self.config.ngroups
        gated = (y * silu(z)).reshape(t, g, -1)
        return self.rms_norm(gated).reshape(t, -1) * layer.gate_norm


def run_job(job, models):
    path = job['model']
    if path not in models:
        models.clear()  # one model at a time: jobs of a batch are sorted by model
        models[path] = load_model(path)
    model = models[path]
    tokens = job['tokens']
    assert tokens and all(0 <= t < model.config.vocab_size for t in tokens), 'a token is outside the vocabulary'
    logits, residuals = Reference(model).forward(tokens)
    kind = {'f64': '<f8', 'f32': '<f4'}[job.get('dtype', 'f64')]
    for array, key in ((logits, 'logits'), (residuals, 'residuals')):
        if job.get(key):
            array.astype(kind).tofile(job[key])
    seen = {}
    if job.get('traps'):
        from traps import visibility
        seen = {'traps': visibility(model, tokens)}
    print(json.dumps({
        'model': path, 'positions': len(tokens), 'vocab_size': model.config.vocab_size,
        'max_logit': float(np.abs(logits).max()), 'exact_zeros': model.exact_zeros,
        'residual_rms': [float(v) for v in np.sqrt(np.mean(residuals ** 2, axis=(1, 2)))],
        **seen}))


def main():
    parser = argparse.ArgumentParser(description='Bi-Mamba in float64, for comparison.')
    parser.add_argument('model', nargs='?', help='checkpoint folder or packed file')
    parser.add_argument('--tokens', help='token ids separated by commas')
    parser.add_argument('--logits', metavar='FILE')
    parser.add_argument('--residuals', metavar='FILE')
    parser.add_argument('--dtype', choices=['f64', 'f32'], default='f64')
    parser.add_argument('--batch', metavar='JOBS.json')
    parser.add_argument('--self-test', action='store_true')
    args = parser.parse_args()
    if args.self_test:
        from selftest import self_test
        return self_test()
    if args.batch:
        with open(args.batch, encoding='utf-8') as f:
            jobs = json.load(f)
    elif args.model and args.tokens:
        jobs = [{'model': args.model, 'tokens': [int(t) for t in args.tokens.split(',')],
                 'logits': args.logits, 'residuals': args.residuals, 'dtype': args.dtype}]
    else:
        parser.error('want MODEL and --tokens, or --batch, or --self-test')
    models = {}
    for job in jobs:
        run_job(job, models)
    return 0


if __name__ == '__main__':
    sys.exit(main())
