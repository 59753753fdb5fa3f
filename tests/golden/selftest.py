"""The reference checked against itself: by hand, by scalars, by the chunked form, and against known mistakes.

Owns: `reference.py --self-test`. Knows nothing of the engine.

The idea: four independent reasons to believe it. Small values worked out by hand; the whole forward pass once
more as scalar loops that read like the index notation of the paper; the SSD form for every chunk size that
cuts the sequence differently; and each known mistake visible on a model of the kind the tests use.
"""

import json
import math
import os
import struct
import tempfile

import numpy as np

from modelfile import Config, Layer, Model, check, load_model
from reference import Reference, silu, softplus
from ssd import ChunkedReference, segment_decay
from traps import TRAPS, SwappedBC, ChunkBorderLost, visibility


def config(**changes):
    fields = dict(n_layer=2, d_model=32, d_state=16, headdim=8, ngroups=2, d_conv=4, expand=2, vocab_size=29,
                  padded_vocab_size=32, tie_embeddings=False, norm_eps=1e-5, dt_min=0.0, dt_max=math.inf)
    fields.update(changes)
    return Config(**fields)


def random_model(c, seed, embedding_std=0.5):
    """Binary projections with alpha of either sign and some 0, decays from about 0.5 to 0.9999."""
    rng = np.random.default_rng(seed)

    def binary(rows, cols):
        alpha = rng.normal(0, 1, cols) / math.sqrt(cols)
        alpha[rng.random(cols) < 0.05] = 0.0
        return alpha * rng.choice([-1.0, 1.0], (rows, cols)) + rng.normal(0, 0.3, cols) / math.sqrt(cols)

    def around_one(n):
        return 1 + rng.normal(0, 0.2, n)

    layers = []
    for _ in range(c.n_layer):
        step = np.exp(rng.uniform(math.log(1e-4), math.log(0.2), c.n_heads))
        layers.append(Layer(
            norm=around_one(c.d_model), w_in=binary(c.in_rows, c.d_model),
            conv_w=rng.normal(0, 0.5, (c.conv_dim, c.d_conv)), conv_b=rng.normal(0, 0.3, c.conv_dim),
            dt_bias=np.log(np.expm1(step)), a_log=rng.uniform(0, math.log(16), c.n_heads),
            d=around_one(c.n_heads), gate_norm=around_one(c.d_inner), w_out=binary(c.d_model, c.d_inner)))
    embedding = rng.normal(0, embedding_std, (c.padded_vocab_size, c.d_model))
    head = embedding if c.tie_embeddings else rng.normal(0, 0.5, embedding.shape)
    return check(Model(c, embedding, layers, around_one(c.d_model), head)), rng


def close(found, wanted, what, bound=1e-10):
    error = float(np.max(np.abs(np.asarray(found) - np.asarray(wanted))))
    assert error <= bound, f'{what}: off by {error:g}'
    return error


def test_by_hand():
    close(silu(np.array([0.0, 1.0, -1000.0, 1000.0])), [0, 1 / (1 + math.exp(-1)), 0, 1000], 'silu')
    # Naive log(1 + exp(x)) is Inf above 709 (88 in f32) and 0 below -37.
    close(softplus(np.array([0.0, 100.0, 800.0])), [math.log(2), 100, 800], 'softplus')
    close(softplus(np.array([-60.0])) / math.exp(-60), 1, 'softplus, relative')

    model, _ = random_model(config(), 1)
    c, r, layer = model.config, Reference(model), model.layers[0]
    assert list(r.group_of_head()) == [0, 0, 0, 0, 1, 1, 1, 1]
    z, xbc, dt = r.split_projection(np.arange(c.in_rows)[None, :])
    assert z[0, 0] == 0 and xbc[0, 0] == 64 and xbc.shape[1] == 64 + 2 * 2 * 16 and dt[0, 0] == 192 and dt.shape[1] == 8
    x, b, cc = r.split_convolved(np.arange(c.conv_dim)[None, :])
    assert x[0, 1, 0] == 8 and b[0, 0, 0] == 64 and b[0, 4, 0] == 80 and cc[0, 3, 15] == 111 and cc[0, 4, 0] == 112

    impulse = np.zeros((6, c.conv_dim))
    impulse[1] = 1.0
    out = r.convolve(layer, impulse) - layer.conv_b
    close(out[0], 0, 'the conv sees the future')
    for lag in range(4):
        close(out[1 + lag], layer.conv_w[:, 3 - lag], f'tap {3 - lag}')
    close(out[5], 0, 'the conv is longer than d_conv')

    # Two groups of very different size: each is normalised by itself, after the gate.
    y = np.concatenate([np.full(32, 3.0), np.full(32, 300.0)])[None, :]
    gate = np.where(np.arange(64) % 2, 2.0, -2.0)[None, :]
    gated = r.gated_norm(layer, y, gate)[0] / layer.gate_norm
    a, b = silu(2.0), silu(-2.0)
    unit = np.where(np.arange(64) % 2, a, b) / math.sqrt((a * a + b * b) / 2)
    close(gated, unit, 'gated norm', 1e-5)

    limited = Reference(random_model(config(dt_min=0.01, dt_max=0.1), 1)[0])
    zero = random_model(config(), 1)[0].layers[0]
    zero.dt_bias[:] = 0
    close(limited.step_size(zero, np.array([-9.0] * 8)), 0.01, 'dt_min')
    close(limited.step_size(zero, np.array([9.0] * 8)), 0.1, 'dt_max')
    close(r.decay_rate(layer), -np.exp(layer.a_log), 'A')


def scalar_logits(model, tokens):
    """The whole pass one token and one number at a time, with explicit states, as an engine would step."""
    c = model.config
    conv = [[[0.0] * c.conv_dim for _ in range(c.d_conv - 1)] for _ in model.layers]
    ssm = [[[[0.0] * c.d_state for _ in range(c.headdim)] for _ in range(c.n_heads)] for _ in model.layers]

    def norm(v, weight):
        scale = 1 / math.sqrt(sum(x * x for x in v) / len(v) + c.norm_eps)
        return [x * scale * w for x, w in zip(v, weight)]

    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    def times(w, v):
        return [sum(w[o, i] * v[i] for i in range(len(v))) for o in range(len(w))]

    rows = []
    for token in tokens:
        r = [float(v) for v in model.embedding[token]]
        for n, layer in enumerate(model.layers):
            p = times(layer.w_in, norm(r, layer.norm))
            z, dt = p[:c.d_inner], p[c.d_inner + c.conv_dim:]
            window = conv[n] + [p[c.d_inner:c.d_inner + c.conv_dim]]
            conv[n] = window[1:]
            act = []
            for ch in range(c.conv_dim):
                v = layer.conv_b[ch] + sum(layer.conv_w[ch, k] * window[k][ch] for k in range(c.d_conv))
                act.append(v * sigmoid(v))
            y = []
            for h in range(c.n_heads):
                g = h * c.ngroups // c.n_heads
                b_at = c.d_inner + g * c.d_state
                c_at = c.d_inner + c.ngroups * c.d_state + g * c.d_state
                step = math.log(1 + math.exp(dt[h] + layer.dt_bias[h]))
                step = min(max(step, c.dt_min), c.dt_max)
                keep = math.exp(-step * math.exp(layer.a_log[h]))
                for i in range(c.headdim):
                    xi = act[h * c.headdim + i]
                    s = ssm[n][h][i]
                    for j in range(c.d_state):
                        s[j] = keep * s[j] + step * xi * act[b_at + j]
                    y.append(sum(s[j] * act[c_at + j] for j in range(c.d_state)) + layer.d[h] * xi)
            gated = [v * g * sigmoid(g) for v, g in zip(y, z)]
            width = c.d_inner // c.ngroups
            normed = []
            for g in range(c.ngroups):
                part = slice(g * width, (g + 1) * width)
                normed += norm(gated[part], layer.gate_norm[part])
            r = [a + b for a, b in zip(r, times(layer.w_out, normed))]
        rows.append(times(model.head, norm(r, model.norm_f))[:c.vocab_size])
    return np.array(rows)


def test_by_scalars():
    worst = 0.0
    for seed, changes in enumerate([dict(), dict(ngroups=1, d_conv=2, tie_embeddings=True), dict(headdim=16, d_conv=3),
                                    dict(ngroups=4, dt_min=0.002, dt_max=0.05), dict(expand=3, headdim=4, ngroups=8)]):
        model, rng = random_model(config(n_layer=1 + seed % 2, **changes), 10 + seed)
        tokens = rng.integers(0, 29, 6)
        logits, residuals = Reference(model).forward(tokens)
        assert logits.shape == (6, 29) and residuals.shape == (model.config.n_layer + 1, 6, 32)
        worst = max(worst, close(logits, scalar_logits(model, tokens), f'scalar form, seed {10 + seed}'))
    return worst


def test_chunked():
    worst = 0.0
    for seed, (length, chunks) in enumerate([(1, [1, 256]), (3, [2, 256]), (50, [1, 7, 16, 50]), (300, [255, 256, 257])]):
        model, rng = random_model(config(n_layer=1), 30 + seed)
        tokens = rng.integers(0, 29, length)
        wanted, _ = Reference(model).forward(tokens)
        for chunk in chunks:
            found, _ = ChunkedReference(model, chunk).forward(tokens)
            worst = max(worst, close(found, wanted, f'SSD, {length} tokens, chunk {chunk}, seed {30 + seed}', 1e-9))
    strong = np.full((64, 1), -40.0, dtype=np.float32)
    with np.errstate(over='ignore', invalid='ignore'):
        assert not np.isfinite(segment_decay(strong, clamp=False)).all(), 'the clamp is not needed any more?'
    decay = segment_decay(strong)[0]
    assert np.isfinite(decay).all()
    close(np.diag(decay), 1, 'segsum diagonal')
    close(decay[5, 4], math.exp(-40), 'segsum one below', 1e-20)
    return worst


def test_traps():
    """Each mistake must be at least ten times the engine's tolerance on one of these models."""
    best = {trap.__name__: 0.0 for trap in TRAPS}
    for seed, (changes, std) in enumerate([(dict(), 0.5), (dict(dt_min=0.001, dt_max=0.02), 0.5), (dict(), 0.01)]):
        model, rng = random_model(config(**changes), 50 + seed, std)
        for name, value in visibility(model, rng.integers(0, 29, 300)).items():
            best[name] = max(best[name], value)
    hidden = {name: value for name, value in best.items() if not value >= 1e-2}
    assert not hidden, f'mistakes that the comparison would miss: {hidden}'
    # Why lengths matter: these two are exact until the second token, and until the chunk is full.
    model, rng = random_model(config(), 60)
    tokens = rng.integers(0, 29, 258)
    right = Reference(model).forward(tokens)[0]
    close(SwappedBC(model).forward(tokens[:1])[0], right[:1], 'B and C swapped, first token')
    close(ChunkBorderLost(model).forward(tokens)[0][:256], right[:256], 'border lost, first chunk')
    return min(best.values())


def write_safetensors(path, tensors, metadata=None):
    header, data = ({'__metadata__': metadata} if metadata else {}), b''
    for name, (dtype, array) in tensors.items():
        blob = array.tobytes()
        header[name] = {'dtype': dtype, 'shape': list(array.shape), 'data_offsets': [len(data), len(data) + len(blob)]}
        data += blob
    text = json.dumps(header).encode()
    with open(path, 'wb') as f:
        f.write(struct.pack('<Q', len(text)) + text + data)


def test_files():
    """One model as an authors' folder and as a packed file gives the same matrices."""
    rng = np.random.default_rng(70)
    c = config(n_layer=1, tie_embeddings=True)
    f32 = lambda *shape: rng.normal(0, 1, shape).astype('<f4')
    bf16 = (f32(c.d_model).view('<u4') >> 16).astype('<u2')
    half = f32(c.padded_vocab_size, c.d_model).astype('<f2')
    latent = {'in': f32(c.in_rows, c.d_model), 'out': f32(c.d_model, c.d_inner)}
    latent['in'][3, 5] = 0.0
    scales = {key: (f32(1, w.shape[1]), f32(1, w.shape[1])) for key, w in latent.items()}
    small = {'dt_bias': f32(c.n_heads), 'A_log': f32(c.n_heads), 'D': f32(c.n_heads)}
    conv_w, conv_b, gate = f32(c.conv_dim, c.d_conv), f32(c.conv_dim), f32(c.d_inner)
    with tempfile.TemporaryDirectory() as folder:
        at, mixer = 'backbone.layers.0.', 'backbone.layers.0.mixer.'
        tensors = {'backbone.embedding.weight': ('F16', half), at + 'norm.weight': ('BF16', bf16),
                   'backbone.norm_f.weight': ('BF16', bf16), mixer + 'norm.weight': ('F32', gate),
                   mixer + 'conv1d.weight': ('F32', conv_w[:, None, :]), mixer + 'conv1d.bias': ('F32', conv_b)}
        packed = {'embedding.weight': ('F16', half), 'layers.0.conv.weight': ('F32', conv_w),
                  'layers.0.conv.bias': ('F32', conv_b), 'layers.0.gate_norm.weight': ('F32', gate)}
        norm = (bf16.astype('<u4') << 16).view('<f4')
        packed['layers.0.norm.weight'] = packed['norm_f.weight'] = ('F32', norm)
        for key, value in small.items():
            tensors[mixer + key] = packed['layers.0.' + key] = ('F32', value)
        for key, w in latent.items():
            alpha, beta = scales[key]
            tensors[f'{mixer}{key}_proj.weight'] = ('F32', w)
            tensors[f'{mixer}{key}_proj.wscale'], tensors[f'{mixer}{key}_proj.wbias'] = ('F32', alpha), ('F32', beta)
            bits = np.zeros((w.shape[0], w.shape[1] // 8), 'u1')
            for o, i in zip(*np.nonzero(w >= 0)):
                bits[o, i // 8] |= 1 << (i % 8)
            packed[f'layers.0.{key}_proj.sign'] = ('U8', bits)
            packed[f'layers.0.{key}_proj.alpha'], packed[f'layers.0.{key}_proj.beta'] = ('F32', alpha[0]), ('F32', beta[0])
        with open(os.path.join(folder, 'config.json'), 'w', encoding='utf-8') as f:
            json.dump({'n_layer': 1, 'd_model': 32, 'vocab_size': 29, 'pad_vocab_size_multiple': 16,
                       'ssm_cfg': {'layer': 'Mamba2', 'd_state': 16, 'headdim': 8, 'ngroups': 2,
                                   'dt_limit': [0.0, math.inf]}}, f)
        write_safetensors(os.path.join(folder, 'model.safetensors'), tensors)
        fields = {**c.__dict__, 'dt_max': None, 'embedding_dtype': 'F16'}
        path = os.path.join(folder, 'packed.bin')
        write_safetensors(path, packed, {'config': json.dumps(fields)})
        ours, theirs = load_model(path), load_model(folder)
    assert ours.config == theirs.config == c
    assert theirs.exact_zeros == 1
    # sign(0) is 0: the third level, W = beta; a sign bit can only say +1 there.
    alpha, beta = (float(v[0, 5]) for v in scales['in'])
    close(theirs.layers[0].w_in[3, 5], beta, 'sign(0)')
    close(ours.layers[0].w_in[3, 5], alpha + beta, 'bit 1')
    theirs.layers[0].w_in[3, 5] += alpha
    for name in Layer.__dataclass_fields__:
        close(getattr(ours.layers[0], name), getattr(theirs.layers[0], name), name, 0)
    close(ours.embedding, half, 'embedding', 0)
    close(ours.norm_f, norm, 'norm_f', 0)
    first = scales['in'][0][0] * np.where(latent['in'][0] >= 0, 1, -1) + scales['in'][1][0]
    close(ours.layers[0].w_in[0], first, 'W = alpha sign + beta', 1e-6)


def self_test():
    for test in (test_by_hand, test_files, test_by_scalars, test_chunked, test_traps):
        result = test()
        print(f'ok {test.__name__}' + ('' if result is None else f' {result:.2g}'))
    return 0
