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

from head import HeadLoss
from scan import Mixing, Norm


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
    """x @ w.T and both gradients with bf16 operands and a bf16 result: on CPUs with bf16 instructions several
    times faster than fp32, and autocast on the CPU would round everything else as well."""

    @staticmethod
    def forward(ctx, x, w):
        rows, low = x.reshape(-1, x.shape[-1]).bfloat16(), w.bfloat16()
        ctx.save_for_backward(rows, low)
        ctx.shape, ctx.types = x.shape, (x.dtype, w.dtype)
        return F.linear(rows, low).view(*x.shape[:-1], len(w))

    @staticmethod
    def backward(ctx, grad):
        rows, low = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1]).bfloat16()
        return (grad @ low).to(ctx.types[0]).view(ctx.shape), (grad.t() @ rows).to(ctx.types[1])


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


def column_scales(weight):
    """Scale and offset [1,in] of the 1-bit form of weight [out,in]: mean |w - mean w| and mean w of each input column."""
    bias = weight.mean(0, keepdim=True)
    return (weight - bias).abs().mean(0, keepdim=True), bias


class Linear(nn.Module):
    """A projection without bias, 1-bit or dense. The 1-bit one has a scale and an offset per input column."""

    def __init__(self, n_in, n_out, binary, shrink=1.0):
        super().__init__()
        bound = 1 / (math.sqrt(n_in) * shrink)
        self.weight = nn.Parameter(torch.empty(n_out, n_in).uniform_(-bound, bound))
        self.bf16 = False
        self.binary = binary
        if binary:
            scale, bias = column_scales(self.weight.detach())
            self.wscale, self.wbias = nn.Parameter(scale), nn.Parameter(bias)

    def forward(self, x):
        weight = Binarize.apply(self.weight, self.wscale, self.wbias) if self.binary else self.weight
        return Bf16Matmul.apply(x, weight) if self.bf16 else F.linear(x, weight.to(x.dtype))


class RMSNorm(nn.Module):
    def __init__(self, width, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        return Norm.apply(x, self.weight, self.eps)


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
        rows, length = self.in_proj(u), u.shape[1]
        pad = -length % self.chunk
        if pad:  # softplus(-inf) = 0: such a token neither decays nor adds
            rows = F.pad(rows, (0, 0, 0, pad))
            rows[:, length:, -self.h:] = -math.inf
        y = Mixing.apply(rows, self.conv1d.weight[:, 0], self.conv1d.bias, self.dt_bias, -self.A_log.exp(), self.D,
                         self.norm.weight, self.p, self.chunk, self.norm.eps)
        return self.out_proj(y[:, :length]).to(u.dtype)

    def step(self, u, state):
        """One token, the recurrence as it is written: u [b,d], state (last inputs of the conv [b,taps-1,k], S [b,h,p,n])."""
        recent, s = state
        z, xbc, dt = self.in_proj(u).to(u.dtype).split([self.d_inner, self.d_inner + 2 * self.n, self.h], -1)
        recent = torch.cat([recent, xbc.unsqueeze(1)], 1)
        xbc = F.silu((recent * self.conv1d.weight[:, 0].t()).sum(1) + self.conv1d.bias)
        x, b_in, c_out = xbc.split([self.d_inner, self.n, self.n], -1)
        x = x.reshape(-1, self.h, self.p)
        dt = F.softplus(dt + self.dt_bias)
        decay = torch.exp(-dt * self.A_log.exp())[..., None, None]
        s = s * decay + (dt.unsqueeze(-1) * x).unsqueeze(-1) * b_in[:, None, None]
        y = (s * c_out[:, None, None]).sum(-1) + x * self.D.unsqueeze(-1)
        return self.out_proj(self.norm(y.reshape(*z.shape) * F.silu(z))).to(u.dtype), (recent[:, 1:], s)

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

    def hidden(self, ids):
        """ids [b,l] -> what the head is given [b,l,d], and the head [vocab_size,d] without the rows that only pad it."""
        r = self.backbone.embedding(ids)
        for block in self.backbone.layers:
            r = r + block.mixer(block.norm(r))
        return self.backbone.norm_f(r), self.lm_head.weight[:self.config.vocab_size]

    def forward(self, ids, labels=None, teacher=None):
        """ids [b,l] -> logits [b,l,vocab_size]; with labels [b,l], or with the teacher's `hidden(ids)`, the mean
        cross-entropy against them."""
        r, head = self.hidden(ids)
        if labels is None and teacher is None:
            return Bf16Matmul.apply(r, head).float() if self.bf16 else F.linear(r, head)
        if self.bf16:
            return HeadLoss.apply(r, head, labels, *(teacher or ()))
        wanted = labels.flatten() if teacher is None else F.softmax(F.linear(*teacher), -1).flatten(0, 1)
        return F.cross_entropy(F.linear(r, head).flatten(0, 1), wanted)

    @torch.no_grad()
    def adopt(self, other):
        """Starts from the weights of another model of the same shape; a 1-bit model takes the signs and the mean scales of a
        dense one."""
        tensors, mine = other.state_dict(), self.state_dict()
        for name, tensor in tensors.items():
            if name not in mine or tensor.shape != mine[name].shape:
                want = tuple(mine[name].shape) if name in mine else "none (a 1-bit checkpoint cannot become a dense model)"
                raise SystemExit(f"{name} is {tuple(tensor.shape)}, want {want}")
        if self.binary and not other.binary:
            for name in [name for name in tensors if name.endswith("_proj.weight")]:
                scale, bias = column_scales(tensors[name])
                tensors[name] = tensors[name] - bias
                tensors[name[:-6] + "wscale"], tensors[name[:-6] + "wbias"] = scale, bias
        self.load_state_dict(tensors)

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
        """The weights are written beside and renamed, so that a reader never meets half of them."""
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
