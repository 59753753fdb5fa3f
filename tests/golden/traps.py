"""The mistakes that public implementations made, each as a wrong reading of one equation.

Owns: one subclass of Reference a mistake, and the measure of how visible it is. Knows neither the engine
nor which cases the tests use.

The idea: a comparison is worth what it can see. Running the mistakes on the very models that the engine is
compared on shows which of them would have passed unnoticed; each must be far above the tolerance somewhere.
"""

from dataclasses import replace

import numpy as np

from reference import Reference, silu


class NormBeforeGate(Reference):
    def gated_norm(self, layer, y, z):
        t, g = len(y), self.config.ngroups
        return self.rms_norm(y.reshape(t, g, -1)).reshape(t, -1) * layer.gate_norm * silu(z)


class NormOverAllGroups(Reference):
    def gated_norm(self, layer, y, z):
        return self.rms_norm(y * silu(z)) * layer.gate_norm


class GroupsTiled(Reference):
    def group_of_head(self):
        return np.arange(self.config.n_heads) % self.config.ngroups


class StepClampedBelow(Reference):
    def step_size(self, layer, dt):
        return np.maximum(super().step_size(layer, dt), 1e-3)


class StepLimitIgnored(Reference):
    def step_size(self, layer, dt):
        return np.logaddexp(0.0, dt + layer.dt_bias)


class StepWithoutBias(Reference):
    def step_size(self, layer, dt):
        return super().step_size(replace(layer, dt_bias=np.zeros_like(layer.dt_bias)), dt)


class Epsilon1e6(Reference):
    def rms_norm(self, x):
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-6)


class TapsReversed(Reference):
    def convolve(self, layer, xbc):
        return super().convolve(replace(layer, conv_w=layer.conv_w[:, ::-1]), xbc)


class ConvStateActivated(Reference):
    def convolve(self, layer, xbc):
        now = xbc * layer.conv_w[:, -1] + layer.conv_b
        kept = replace(layer, conv_w=layer.conv_w * (np.arange(self.config.d_conv) < self.config.d_conv - 1),
                       conv_b=np.zeros_like(layer.conv_b))
        return super().convolve(kept, silu(xbc)) + now


class ConvStateLost(Reference):
    """A prompt in two appends, the conv state of the first not carried over."""
    border = 17

    def convolve(self, layer, xbc):
        parts = [super(ConvStateLost, self).convolve(layer, p) for p in np.split(xbc, [self.border]) if len(p)]
        return np.concatenate(parts)


class ConvBiasLost(Reference):
    def convolve(self, layer, xbc):
        return super().convolve(layer, xbc) - layer.conv_b


class DecayIsLog(Reference):
    def decay_rate(self, layer):
        return -layer.a_log


class SwappedBC(Reference):
    """Exact for the first token, wrong from the second on."""
    def scan(self, x, dt, a, b, c):
        return super().scan(x, dt, a, c, b)


class ChunkBorderLost(Reference):
    """Only prompts beyond the chunk show it."""
    chunk = 256

    def scan(self, x, dt, a, b, c):
        cut = [slice(i, i + self.chunk) for i in range(0, len(x), self.chunk)]
        return np.concatenate([super(ChunkBorderLost, self).scan(x[q], dt[q], a, b[q], c[q]) for q in cut])


class StateTransposed(Reference):
    """S read as [d_state, headdim]: hidden where the two are equal and only a transpose apart."""
    def scan(self, x, dt, a, b, c):
        state = np.zeros((x.shape[1], x.shape[2], b.shape[2]))
        y = np.empty_like(x)
        for t in range(len(x)):
            state = state * np.exp(dt[t] * a)[:, None, None]
            state += (dt[t][:, None] * x[t])[:, :, None] * b[t][:, None, :]
            read = state.reshape(x.shape[1], b.shape[2], x.shape[2])
            y[t] = np.einsum('hnp,hn->hp', read, c[t])
        return y


class SkipTermLost(Reference):
    def scan(self, x, dt, a, b, c):
        return super().scan(x, dt, a, b, c) - self.skip[None, :, None] * x

    def mixer(self, layer, u):
        self.skip = layer.d
        return super().mixer(layer, u)


class ProjectionMistake(Reference):
    """A mistake in what W means: alpha and beta are recovered from the dense matrix, then misread."""

    def __init__(self, model):
        layers = [replace(layer, w_in=self.misread(layer.w_in), w_out=self.misread(layer.w_out))
                  for layer in model.layers]
        super().__init__(replace(model, layers=layers))

    def misread(self, w):
        high, low = w.max(axis=0), w.min(axis=0)
        return self.assemble(w, (high - low) / 2, (high + low) / 2)

    def assemble(self, w, alpha, beta):
        raise NotImplementedError


class BetaLost(ProjectionMistake):
    def assemble(self, w, alpha, beta):
        return w - beta


class BetaDoubled(ProjectionMistake):
    def assemble(self, w, alpha, beta):
        return w + beta


class BetaScaled(ProjectionMistake):
    """beta added after alpha was folded into the input, so that it is multiplied by alpha too."""
    def assemble(self, w, alpha, beta):
        return w - beta + beta * alpha


class ScalePerRow(ProjectionMistake):
    def assemble(self, w, alpha, beta):
        return np.sign(w - beta) * np.resize(alpha, len(w))[:, None] + beta


class UntiedHeadIgnored(Reference):
    def __init__(self, model):
        super().__init__(replace(model, head=model.embedding))


class FinalNormLost(Reference):
    def __init__(self, model):
        super().__init__(replace(model, norm_f=np.ones_like(model.norm_f)))


TRAPS = [NormBeforeGate, NormOverAllGroups, GroupsTiled, StepClampedBelow, StepLimitIgnored, StepWithoutBias,
         Epsilon1e6, TapsReversed, ConvStateActivated, ConvStateLost, ConvBiasLost, DecayIsLog, SwappedBC,
         ChunkBorderLost, StateTransposed, SkipTermLost, BetaLost, BetaDoubled, BetaScaled,
         ScalePerRow, UntiedHeadIgnored, FinalNormLost]


def visibility(model, tokens):
    """{mistake: max |logit difference| / (1 + max |logit|)}: what the engine's tolerance is a limit on."""
    right, _ = Reference(model).forward(tokens)
    scale = 1 + np.abs(right).max()
    seen = {}
    for trap in TRAPS:
        wrong, _ = trap(model).forward(tokens)
        seen[trap.__name__] = float(np.abs(wrong - right).max() / scale)
    return seen
