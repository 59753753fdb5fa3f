"""Bi-Mamba-2 and plain Mamba-2 language models for training, in PyTorch without custom kernels.

Owns: the forward pass over whole sequences and by single tokens, the 1-bit linear layer, and the checkpoint folder
(`config.json` + `pytorch_model.bin`) with the tensor names of the published Bi-Mamba models.
Does not know: data, loss, optimizer, devices.
The idea: a sequence is cut into chunks. Inside a chunk the recurrence is a masked matrix product, between
chunks one small state per head is handed on, so nearly all work is matrix multiplication.

Shapes: b sequences, l tokens, h heads of p channels (d_inner = h*p), n = d_state, c chunks of q tokens.
"""
import json
import math
import os
from dataclasses import asdict, dataclass, field

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Config:
    """The keys of config.json. What `ssm_cfg` leaves out has Mamba-2's defaults, see `ssm`."""
    d_model: int
    n_layer: int
    vocab_size: int
    d_intermediate: int = 0
    ssm_cfg: dict = field(default_factory=lambda: {"layer": "Mamba2"})
    attn_layer_idx: list = field(default_factory=list)
    attn_cfg: dict = field(default_factory=dict)
    rms_norm: bool = True
    residual_in_fp32: bool = True
    fused_add_norm: bool = True
    pad_vocab_size_multiple: int = 16
    tie_embeddings: bool = True

    def ssm(self, key):
        return self.ssm_cfg.get(key, {"d_state": 128, "d_conv": 4, "expand": 2, "headdim": 64}[key])

    @property
    def padded_vocab(self):
        return -(-self.vocab_size // self.pad_vocab_size_multiple) * self.pad_vocab_size_multiple


class Bf16Matmul(torch.autograd.Function):
    """x @ w.T and both gradients with bf16 operands and fp32 results: on CPUs with bf16 instructions several
    times faster than fp32, and autocast on the CPU would round everything else as well."""

    @staticmethod
    def forward(ctx, x, w):
        rows, w = x.reshape(-1, x.shape[-1]).bfloat16(), w.bfloat16()
        ctx.save_for_backward(rows, w)
        ctx.shape = x.shape
        return F.linear(rows, w).float().view(*x.shape[:-1], w.shape[0])

    @staticmethod
    def backward(ctx, grad):
        rows, w = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1]).bfloat16()
        return (grad @ w).float().view(ctx.shape), (grad.t() @ rows).float()


class LabelLoss(torch.autograd.Function):
    """Mean cross-entropy of the head's logits against labels, a few rows at a time: the logits of a whole batch are
    its largest array by far, and here a block of them stays in cache and is gone before the next. The gradients are
    known at once, so the forward pass leaves them ready."""

    @staticmethod
    def forward(ctx, hidden, weight, labels, rows=128):
        flat, labels = hidden.reshape(-1, hidden.shape[-1]).bfloat16(), labels.reshape(-1, 1)
        low = weight.bfloat16()
        grad_hidden, grad_weight = torch.empty(flat.shape, device=flat.device), torch.zeros_like(weight)
        loss = torch.zeros((), device=flat.device)
        for start in range(0, len(flat), rows):
            part, label = flat[start:start + rows], labels[start:start + rows]
            p = F.log_softmax(F.linear(part, low).float(), -1)
            loss -= p.gather(1, label).sum()
            p.exp_().scatter_add_(1, label, torch.full(label.shape, -1.0, device=p.device))
            p = p.bfloat16()
            grad_hidden[start:start + rows] = p @ low
            grad_weight += p.t() @ part
        ctx.save_for_backward(grad_hidden.view(hidden.shape), grad_weight)
        ctx.count = len(flat)
        return loss / len(flat)

    @staticmethod
    def backward(ctx, grad):
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * (grad / ctx.count), grad_weight * (grad / ctx.count), None, None


class Binarize(torch.autograd.Function):
    """alpha * sign(w) + beta. Straight through: w gets the gradient of its sign, never clipped."""

    @staticmethod
    def forward(ctx, weight, wscale, wbias):
        sign = weight.sign()
        ctx.save_for_backward(sign, wscale)
        return torch.addcmul(wbias, wscale, sign)

    @staticmethod
    def backward(ctx, grad):
        sign, wscale = ctx.saved_tensors
        return grad * wscale, (grad * sign).sum(0, keepdim=True), grad.sum(0, keepdim=True)


class Linear(nn.Module):
    """A projection without bias, 1-bit or dense. The 1-bit one has a scale and an offset per input column."""

    def __init__(self, n_in, n_out, binary, shrink=1.0):
        super().__init__()
        bound = 1 / (math.sqrt(n_in) * shrink)
        self.weight = nn.Parameter(torch.empty(n_out, n_in).uniform_(-bound, bound))
        self.bf16 = False
        self.binary = binary
        if binary:
            mean = self.weight.detach().mean(0, keepdim=True)
            self.wscale = nn.Parameter((self.weight.detach() - mean).abs().mean(0, keepdim=True))
            self.wbias = nn.Parameter(mean.clone())

    def forward(self, x):
        weight = Binarize.apply(self.weight, self.wscale, self.wbias) if self.binary else self.weight
        return Bf16Matmul.apply(x, weight) if self.bf16 else F.linear(x, weight.to(x.dtype))


class RMSNorm(nn.Module):
    def __init__(self, width, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class CausalConv(torch.autograd.Function):
    """Depthwise causal convolution, x [b,l,k], w [k,taps], bias [k]; the last tap meets the current token.
    One shifted multiply-add per tap: torch's grouped convolution is an order slower on the CPU, backward above all."""

    @staticmethod
    def forward(ctx, x, w, bias):
        ctx.save_for_backward(x, w)
        y = torch.addcmul(bias, x, w[:, -1])
        for back in range(1, min(w.shape[1], x.shape[1])):
            y[:, back:].addcmul_(x[:, :-back], w[:, -1 - back])
        return y

    @staticmethod
    def backward(ctx, grad):
        x, w = ctx.saved_tensors
        grad_x, grad_w = grad * w[:, -1], torch.zeros_like(w)
        grad_w[:, -1] = (grad * x).sum((0, 1))
        for back in range(1, min(w.shape[1], x.shape[1])):
            grad_x[:, :-back].addcmul_(grad[:, back:], w[:, -1 - back])
            grad_w[:, -1 - back] = (grad[:, back:] * x[:, :-back]).sum((0, 1))
        return grad_x, grad_w, grad.sum((0, 1))


def scan(x, dt, a, b_in, c_out, chunk):
    """y[t] = S[t] . C[t] with S[t] = exp(dt[t] a) S[t-1] + dt[t] x[t] (outer) B[t], from S = 0, for all t at once.

    x [b,l,h,p], dt [b,l,h], a [h] negative, b_in and c_out [b,l,n] -> y [b,l,h,p]
    """
    batch, length, h, p = x.shape
    pad = -length % chunk
    if pad:  # dt = 0 neither decays nor adds
        x, dt = F.pad(x, (0, 0, 0, 0, 0, pad)), F.pad(dt, (0, 0, 0, pad))
        b_in, c_out = F.pad(b_in, (0, 0, 0, pad)), F.pad(c_out, (0, 0, 0, pad))
    c = (length + pad) // chunk
    b_in, c_out = b_in.view(batch, c, chunk, -1), c_out.view(batch, c, chunk, -1)
    log_decay = (dt * a).view(batch, c, chunk, h).cumsum(2)  # since the chunk began, this token included
    xdt = (x * dt.unsqueeze(-1)).view(batch, c, chunk, h, p)

    # Inside a chunk: token t sees s <= t, faded by exp(log_decay[t] - log_decay[s]). The difference of two sums is
    # above 0 only by rounding, and the future is cut before exp, so nothing overflows.
    t = log_decay.transpose(2, 3)
    future = torch.full((chunk, chunk), float("inf"), dtype=x.dtype, device=x.device).triu(1)
    fade = (t.unsqueeze(-1) - t.unsqueeze(-2)).sub(future).exp()  # [b,c,h,q,q]
    seen = (c_out @ b_in.transpose(-1, -2)).unsqueeze(2) * fade
    y = (seen @ xdt.transpose(2, 3)).transpose(2, 3)

    # What each chunk adds to the state, faded to the chunk's end; then hand the state on, chunk by chunk.
    to_end = (log_decay[:, :, -1:] - log_decay).exp().unsqueeze(-1)
    added = b_in.transpose(-1, -2) @ (xdt * to_end).reshape(batch, c, chunk, h * p)
    whole = log_decay[:, :, -1].exp().repeat_interleave(p, -1).unsqueeze(2)  # [b,c,1,h*p]
    state, before = torch.zeros_like(added[:, 0]), []
    for keep, more in zip(whole.unbind(1), added.unbind(1)):  # unbind: indexing's gradient fills the whole tensor each time
        before.append(state)
        state = torch.addcmul(more, state, keep)
    carried = (c_out @ torch.stack(before, 1)).view(batch, c, chunk, h, p)
    y = y + carried * log_decay.exp().unsqueeze(-1)
    return y.reshape(batch, -1, h, p)[:, :length]


class Mixer(nn.Module):
    def __init__(self, config, binary):
        super().__init__()
        d, self.n, taps = config.d_model, config.ssm("d_state"), config.ssm("d_conv")
        self.d_inner, self.p = d * config.ssm("expand"), config.ssm("headdim")
        self.h = self.d_inner // self.p
        self.chunk = 64
        width = self.d_inner + 2 * self.n
        self.in_proj = Linear(d, self.d_inner + width + self.h, binary)
        self.conv1d = nn.Conv1d(width, width, taps, groups=width)  # holds weight and bias, never called
        step = torch.exp(torch.empty(self.h).uniform_(math.log(1e-3), math.log(1e-1)))
        self.dt_bias = nn.Parameter(step + torch.log(-torch.expm1(-step)))  # softplus gives `step`
        self.A_log = nn.Parameter(torch.empty(self.h).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(self.h))
        self.norm = RMSNorm(self.d_inner)
        self.out_proj = Linear(self.d_inner, d, binary, shrink=math.sqrt(config.n_layer))

    def forward(self, u):
        z, xbc, dt = self.in_proj(u).split([self.d_inner, self.d_inner + 2 * self.n, self.h], -1)
        xbc = F.silu(CausalConv.apply(xbc, self.conv1d.weight[:, 0], self.conv1d.bias))
        x, b_in, c_out = xbc.split([self.d_inner, self.n, self.n], -1)
        x = x.reshape(*x.shape[:2], self.h, self.p)
        dt = F.softplus(dt + self.dt_bias)
        y = scan(x, dt, -self.A_log.exp(), b_in.contiguous(), c_out.contiguous(), self.chunk)
        y = (y + x * self.D.unsqueeze(-1)).reshape(*z.shape)
        return self.out_proj(self.norm(y * F.silu(z)))

    def step(self, u, state):
        """One token, the recurrence as it is written: u [b,d], state (last inputs of the conv [b,taps-1,k], S [b,h,p,n])."""
        recent, s = state
        z, xbc, dt = self.in_proj(u).split([self.d_inner, self.d_inner + 2 * self.n, self.h], -1)
        recent = torch.cat([recent, xbc.unsqueeze(1)], 1)
        xbc = F.silu((recent * self.conv1d.weight[:, 0].t()).sum(1) + self.conv1d.bias)
        x, b_in, c_out = xbc.split([self.d_inner, self.n, self.n], -1)
        x = x.reshape(-1, self.h, self.p)
        dt = F.softplus(dt + self.dt_bias)
        decay = torch.exp(-dt * self.A_log.exp())[..., None, None]
        s = s * decay + (dt.unsqueeze(-1) * x).unsqueeze(-1) * b_in[:, None, None]
        y = (s * c_out[:, None, None]).sum(-1) + x * self.D.unsqueeze(-1)
        return self.out_proj(self.norm(y.reshape(*z.shape) * F.silu(z))), (recent[:, 1:], s)

    def empty_state(self, batch):
        k, taps = self.conv1d.weight.shape[0], self.conv1d.weight.shape[2]
        like = self.A_log
        return like.new_zeros(batch, taps - 1, k), like.new_zeros(batch, self.h, self.p, self.n)


class Block(nn.Module):
    def __init__(self, config, binary):
        super().__init__()
        self.norm = RMSNorm(config.d_model)
        self.mixer = Mixer(config, binary)


class Backbone(nn.Module):
    def __init__(self, config, binary):
        super().__init__()
        self.embedding = nn.Embedding(config.padded_vocab, config.d_model)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.layers = nn.ModuleList(Block(config, binary) for _ in range(config.n_layer))
        self.norm_f = RMSNorm(config.d_model)


class LanguageModel(nn.Module):
    def __init__(self, config, binary):
        super().__init__()
        self.config = config
        self.binary = binary
        self.bf16 = False
        self.backbone = Backbone(config, binary)
        self.lm_head = nn.Linear(config.d_model, config.padded_vocab, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.backbone.embedding.weight

    def tune(self, bf16, chunk=64):
        """How to compute, not what: bf16 projections, tokens per chunk."""
        self.bf16 = bf16
        for block in self.backbone.layers:
            block.mixer.chunk = chunk
            block.mixer.in_proj.bf16 = block.mixer.out_proj.bf16 = bf16
        return self

    def forward(self, ids, labels=None):
        """ids [b,l] -> logits [b,l,vocab_size], or with labels [b,l] the mean cross-entropy.
        The rows that only pad the vocabulary are cut off."""
        r = self.backbone.embedding(ids)
        for block in self.backbone.layers:
            r = r + block.mixer(block.norm(r))
        r, weight = self.backbone.norm_f(r), self.lm_head.weight[:self.config.vocab_size]
        if labels is not None and self.bf16:
            return LabelLoss.apply(r, weight, labels)
        logits = Bf16Matmul.apply(r, weight) if self.bf16 else F.linear(r, weight)
        return logits if labels is None else F.cross_entropy(logits.flatten(0, 1), labels.flatten())

    @torch.no_grad()
    def step(self, ids, states=None):
        """One token each, ids [b] -> logits [b,vocab_size] and the states for the next call."""
        layers = self.backbone.layers
        states = states or [block.mixer.empty_state(len(ids)) for block in layers]
        r, after = self.backbone.embedding(ids), []
        for block, state in zip(layers, states):
            out, state = block.mixer.step(block.norm(r), state)
            r = r + out
            after.append(state)
        return F.linear(self.backbone.norm_f(r), self.lm_head.weight[:self.config.vocab_size]), after

    def save(self, folder):
        """Written beside and renamed, so that a reader never meets half a file."""
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, "pytorch_model.bin")
        torch.save({name: t.detach().cpu() for name, t in self.state_dict().items()}, path + ".part")
        with open(os.path.join(folder, "config.json"), "w") as file:
            json.dump(asdict(self.config), file, indent=4)
        os.replace(path + ".part", path)

    @classmethod
    def load(cls, folder):
        with open(os.path.join(folder, "config.json")) as file:
            config = Config(**json.load(file))
        tensors = torch.load(os.path.join(folder, "pytorch_model.bin"), map_location="cpu", weights_only=True)
        model = cls(config, binary=any(name.endswith(".wscale") for name in tensors))
        model.load_state_dict(tensors)
        return model
