"""Reads a Bi-Mamba model into float64 arrays: a checkpoint folder of the authors, or a packed file.

Owns: a minimal safetensors reader (F64, F32, F16, BF16, I8, U8), the authors' names and defaults, the
packed names of models/FORMAT.md, and what both mean as dense matrices. Knows nothing of the forward pass.

The idea: both layouts end as the same plain `Model` of dense float64 matrices, W = alpha * sign + beta
written out in full, so that the forward pass cannot inherit a mistake from any trick with bits or scales.
It trusts its input: it is a tool for tests, not a parser for strangers' files.
"""

import json
import math
import os
import struct
from dataclasses import dataclass

import numpy as np

NORM_EPS = 1e-5  # the authors' modules; their config.json has no field for it, ours may say norm_epsilon
ITEM_BYTES = {'F64': 8, 'F32': 4, 'F16': 2, 'BF16': 2, 'I8': 1, 'U8': 1}


@dataclass
class Config:
    n_layer: int
    d_model: int
    d_state: int
    headdim: int
    ngroups: int
    d_conv: int
    expand: int
    vocab_size: int
    padded_vocab_size: int
    tie_embeddings: bool
    norm_eps: float
    dt_min: float
    dt_max: float  # math.inf: no upper limit

    @property
    def d_inner(self):
        return self.expand * self.d_model

    @property
    def n_heads(self):
        return self.d_inner // self.headdim

    @property
    def conv_dim(self):
        return self.d_inner + 2 * self.ngroups * self.d_state

    @property
    def in_rows(self):
        return self.d_inner + self.conv_dim + self.n_heads


@dataclass
class Layer:
    norm: np.ndarray       # [d_model]
    w_in: np.ndarray       # [in_rows, d_model]
    conv_w: np.ndarray     # [conv_dim, d_conv], the last tap is the current token
    conv_b: np.ndarray     # [conv_dim]
    dt_bias: np.ndarray    # [n_heads]
    a_log: np.ndarray      # [n_heads]
    d: np.ndarray          # [n_heads]
    gate_norm: np.ndarray  # [d_inner]
    w_out: np.ndarray      # [d_model, d_inner]


@dataclass
class Model:
    config: Config
    embedding: np.ndarray  # [padded_vocab_size, d_model]
    layers: list           # of Layer
    norm_f: np.ndarray     # [d_model]
    head: np.ndarray       # [padded_vocab_size, d_model]; the embedding itself when tied
    exact_zeros: int = 0   # latent weights that are exactly 0: sign 0, the third level


def read_safetensors(path):
    """All tensors of a file as {name: array} and its metadata; BF16 is widened, nothing else is converted."""
    with open(path, 'rb') as f:
        raw = f.read()
    (length,) = struct.unpack('<Q', raw[:8])
    header = json.loads(raw[8:8 + length])
    metadata = header.pop('__metadata__', {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry['data_offsets']
        data = raw[8 + length + begin:8 + length + end]
        shape = entry['shape']
        assert len(data) == math.prod(shape) * ITEM_BYTES[entry['dtype']], name
        if entry['dtype'] == 'BF16':  # the upper half of an f32
            array = (np.frombuffer(data, '<u2').astype('<u4') << 16).view('<f4')
        else:
            kind = {'F64': '<f8', 'F32': '<f4', 'F16': '<f2', 'I8': 'i1', 'U8': 'u1'}[entry['dtype']]
            array = np.frombuffer(data, kind)
        tensors[name] = array.reshape(shape)
    return tensors, metadata


def load_model(path):
    """A `Model` from a checkpoint folder (config.json and *.safetensors) or from one packed file."""
    return load_checkpoint(path) if os.path.isdir(path) else load_packed(path)


def f64(array):
    return np.asarray(array).astype(np.float64)


def load_checkpoint(folder):
    with open(os.path.join(folder, 'config.json'), encoding='utf-8') as f:
        raw = json.load(f)
    tensors = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith('.safetensors'):
            tensors.update(read_safetensors(os.path.join(folder, name))[0])
    config = checkpoint_config(raw)
    zeros = 0

    def projection(prefix):
        nonlocal zeros
        latent = f64(tensors[prefix + '.weight'])
        if prefix + '.wscale' not in tensors:
            return latent  # a plain Mamba-2, or a dense export: the matrix is what it says
        zeros += int(np.count_nonzero(latent == 0))
        # One alpha and one beta per input column, shape (1, in), so they broadcast down the rows.
        alpha, beta = f64(tensors[prefix + '.wscale']), f64(tensors[prefix + '.wbias'])
        assert alpha.shape == beta.shape == (1, latent.shape[1]), prefix
        return alpha * np.sign(latent) + beta

    layers = []
    for n in range(config.n_layer):
        layer = f'backbone.layers.{n}.'
        mixer = layer + 'mixer.'
        layers.append(Layer(
            norm=f64(tensors[layer + 'norm.weight']),
            w_in=projection(mixer + 'in_proj'),
            conv_w=f64(tensors[mixer + 'conv1d.weight'])[:, 0, :],
            conv_b=f64(tensors[mixer + 'conv1d.bias']),
            dt_bias=f64(tensors[mixer + 'dt_bias']),
            a_log=f64(tensors[mixer + 'A_log']),
            d=f64(tensors[mixer + 'D']),
            gate_norm=f64(tensors[mixer + 'norm.weight']),
            w_out=projection(mixer + 'out_proj')))
    embedding = f64(tensors['backbone.embedding.weight'])
    head = embedding if config.tie_embeddings else f64(tensors['lm_head.weight'])
    return check(Model(config, embedding, layers, f64(tensors['backbone.norm_f.weight']), head, zeros))


def checkpoint_config(raw):
    """config.json with the defaults of the authors' modules."""
    ssm = raw.get('ssm_cfg', {})
    assert ssm.get('layer') == 'Mamba2', 'ssm_cfg.layer must say Mamba2'
    multiple = raw.get('pad_vocab_size_multiple', 8)
    dt_min, dt_max = ssm.get('dt_limit', [0.0, math.inf])
    return Config(
        n_layer=raw['n_layer'], d_model=raw['d_model'], d_state=ssm.get('d_state', 128),
        headdim=ssm.get('headdim', 64), ngroups=ssm.get('ngroups', 1), d_conv=ssm.get('d_conv', 4),
        expand=ssm.get('expand', 2), vocab_size=raw['vocab_size'],
        padded_vocab_size=-(-raw['vocab_size'] // multiple) * multiple,
        tie_embeddings=raw.get('tie_embeddings', True), norm_eps=raw.get('norm_epsilon', NORM_EPS),
        dt_min=float(dt_min), dt_max=math.inf if dt_max is None else float(dt_max))


def load_packed(path):
    tensors, metadata = read_safetensors(path)
    fields = json.loads(metadata['config'])
    fields.pop('embedding_dtype')
    fields.pop('projection_dtype', None)
    fields['dt_max'] = math.inf if fields['dt_max'] is None else fields['dt_max']
    config = Config(**fields)

    def table(name):
        """The dequantised rows of an embedding or head."""
        values = f64(tensors[name + '.weight'])
        return values * f64(tensors[name + '.scale'])[:, None] if name + '.scale' in tensors else values

    def projection(prefix):
        if prefix + '.weight' in tensors:
            return dense(prefix)
        # Bit i % 8 of byte i / 8 is column i, least significant first; 1 means +1.
        signs = np.unpackbits(tensors[prefix + '.sign'], axis=1, bitorder='little') * 2.0 - 1.0
        return f64(tensors[prefix + '.alpha']) * signs + f64(tensors[prefix + '.beta'])

    def dense(prefix):
        """Binary16 as it is, int8 with a scale a row, or nibbles (U8) with a scale for 128 columns of a row."""
        weight = tensors[prefix + '.weight']
        if weight.dtype != np.uint8:
            return table(prefix)
        # Word j of the 8 of 32 columns has columns j, 8 + j, 16 + j, 24 + j, lowest bits first, in two's complement.
        words = np.ascontiguousarray(weight).view('<u2').reshape(len(weight), -1, 1, 8)
        nibbles = (words >> np.array([0, 4, 8, 12], '<u2')[:, None] & 15).reshape(len(weight), -1)
        codes = (nibbles.astype(np.float64) + 8) % 16 - 8
        scales = np.repeat(f64(tensors[prefix + '.scale']), 128, axis=1)
        return codes * scales[:, :codes.shape[1]]

    layers = []
    for n in range(config.n_layer):
        at = f'layers.{n}.'
        layers.append(Layer(
            norm=f64(tensors[at + 'norm.weight']), w_in=projection(at + 'in_proj'),
            conv_w=f64(tensors[at + 'conv.weight']), conv_b=f64(tensors[at + 'conv.bias']),
            dt_bias=f64(tensors[at + 'dt_bias']), a_log=f64(tensors[at + 'A_log']), d=f64(tensors[at + 'D']),
            gate_norm=f64(tensors[at + 'gate_norm.weight']), w_out=projection(at + 'out_proj')))
    embedding = table('embedding')
    head = embedding if config.tie_embeddings else table('head')
    return check(Model(config, embedding, layers, f64(tensors['norm_f.weight']), head))


def check(model):
    """Shapes are what the configuration says: a transposed or misnamed tensor stops here."""
    c = model.config
    assert c.d_inner % c.headdim == 0 and c.n_heads % c.ngroups == 0
    wanted = dict(
        norm=(c.d_model,), w_in=(c.in_rows, c.d_model), conv_w=(c.conv_dim, c.d_conv), conv_b=(c.conv_dim,),
        dt_bias=(c.n_heads,), a_log=(c.n_heads,), d=(c.n_heads,), gate_norm=(c.d_inner,),
        w_out=(c.d_model, c.d_inner))
    for n, layer in enumerate(model.layers):
        for name, shape in wanted.items():
            found = getattr(layer, name).shape
            assert found == shape, f'layer {n} {name}: {found}, want {shape}'
    for name in ('embedding', 'head'):
        found = getattr(model, name).shape
        assert found == (c.padded_vocab_size, c.d_model), f'{name}: {found}'
    assert model.norm_f.shape == (c.d_model,)
    return model
