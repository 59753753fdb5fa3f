"""What a Mamba-2 layer does between its two projections, and its gradients by hand.

Owns: convolution, recurrence and norms as autograd Functions. Does not know: projections, parameters' names.
The idea: autograd would spend most of a training step on elementwise products of large broadcast arrays. Here each
part is a forward and a backward in few passes over contiguous arrays, and on the CPU one sequence at a time goes
through all parts, so that what they hand to each other is still in cache.

Shapes: b sequences, l tokens, h heads of p channels (d_inner = h*p), n = d_state, c chunks of q tokens.
"""
import torch
import torch.nn.functional as F


def conv_forward(x, w, bias):
    """Depthwise causal convolution, x [b,l,k], w [k,taps], bias [k]; the last tap meets the current token.
    One shifted multiply-add per tap: torch's grouped convolution is an order slower on the CPU."""
    taps = w.t().contiguous().flip(0)
    y = torch.addcmul(bias, x, taps[0])
    for back in range(1, min(len(taps), x.shape[1])):
        y[:, back:].addcmul_(x[:, :-back], taps[back])
    return y


def conv_backward(grad, x, w):
    taps, grad_w = w.t().contiguous().flip(0), torch.zeros_like(w)
    grad_x = grad * taps[0]
    grad_w[:, -1] = (grad * x).sum((0, 1))
    for back in range(1, min(len(taps), x.shape[1])):
        grad_x[:, :-back].addcmul_(grad[:, back:], taps[back])
        grad_w[:, -1 - back] = (grad[:, back:] * x[:, :-back]).sum((0, 1))
    return grad_x, grad_w, grad.sum((0, 1))


def wide(per_head, like):
    """[..., h] -> [..., h*p], as wide as `like`."""
    p = like.shape[-1] // per_head.shape[-1]
    return per_head.unsqueeze(-1).expand(*per_head.shape, p).flatten(-2)


def silu_backward(grad, y, gate):
    """In place: grad *= y', where y = x * gate and gate = sigmoid(x), so y' = gate + y (1 - gate)."""
    return grad.mul_(torch.addcmul(y, y, gate, value=-1).add_(gate))


class Chunks:
    """Sequences cut into chunks: views of x, B and C in xbc [b,l,h*p+2n], and how much a token fades.

    dt [b,l,h], a [h] negative, l a multiple of q. L is the sum of dt*a since the chunk began, this token included.
    """

    def __init__(self, xbc, dt, a, p, q):
        self.h, self.q = len(a), q
        self.x, self.b_in, self.c_out = self.split(xbc, self.h * p)
        step = dt.unflatten(1, (-1, q)).transpose(2, 3).contiguous()  # [b,c,h,q]
        self.decay = (step * a.unsqueeze(-1)).cumsum(-1)  # L
        self.log_step = step.log()
        self.from_start = self.by_token(self.decay.exp())
        self.to_end = self.by_token((self.decay[..., -1:] - self.decay).exp_().mul_(step))
        self.whole = wide(self.decay[..., -1].exp(), self.x).unsqueeze(2)  # [b,c,1,h*p]

    def split(self, xbc, d_inner):
        x, bc = xbc.unflatten(1, (-1, self.q)).tensor_split([d_inner], -1)
        return (x, *bc.chunk(2, -1))  # [b,c,q,h*p] and twice [b,c,q,n]

    @staticmethod
    def by_token(s):
        return s.transpose(2, 3).unsqueeze(-1).contiguous()  # [b,c,h,q] -> [b,c,q,h,1]

    def heads(self, x):
        return x.unflatten(-1, (self.h, -1))  # [b,c,q,h*p] -> [b,c,q,h,p]

    def by_head(self, x):
        return self.heads(x).transpose(2, 3).contiguous()  # -> [b,c,h,q,p]

    def scale(self, x, factor):
        return (self.heads(x) * factor).flatten(-2)

    def fade(self):
        """dt[s] exp(L[t] - L[s]) for s <= t, else 0: [b,c,h,q,q]. L[t] - L[s] is above 0 only by rounding, and the
        future is cut before exp, so nothing overflows."""
        future = torch.full((self.q, self.q), float("inf"), dtype=self.decay.dtype, device=self.decay.device).triu_(1)
        fade = self.decay.unsqueeze(-1) - (self.decay - self.log_step).unsqueeze(-2)
        return fade.sub_(future).exp_()

    def seen(self, fade):
        """M[t,s] = C[t] . B[s] fade[t,s]: inside a chunk y = M x."""
        return fade * (self.c_out @ self.b_in.transpose(-1, -2)).unsqueeze(2)


def scan_forward(xbc, dt, a, p, chunk):
    """y[t] = S[t] . C[t] with S[t] = exp(dt[t] a) S[t-1] + dt[t] x[t] (outer) B[t], from S = 0.

    Inside a chunk a masked matrix product; between chunks a state [n,h*p] is handed on.
    Gives y [b,l,h*p] and, for the backward, the states after each chunk but the last.
    """
    k = Chunks(xbc, dt, a, p, chunk)
    fade = k.fade()
    inside = (k.seen(fade) @ k.by_head(k.x)).transpose(2, 3)  # [b,c,q,h,p]
    y = torch.empty(inside.shape, dtype=xbc.dtype, device=xbc.device)
    y[:, :1] = inside[:, :1]
    states = k.b_in[:, :-1].transpose(-1, -2) @ k.scale(k.x[:, :-1], k.to_end[:, :-1])  # what each chunk adds
    for i in range(1, states.shape[1]):
        states[:, i].addcmul_(states[:, i - 1], k.whole[:, i])
    carried = k.heads(k.c_out[:, 1:] @ states)
    torch.addcmul(inside[:, 1:], carried, k.from_start[:, 1:], out=y[:, 1:])
    return y.flatten(3).flatten(1, 2), states


def scan_backward(grad, y, xbc, dt, a, p, chunk, states):
    """Gradients of xbc, dt, a for grad [b,l,h*p].

    Write y[t] = sum over s of W[t,s] x[s], where W[t,s] for s <= t holds dt[s] exp(sum of dt*a over s+1..t), and let
    G[t,s] = W[t,s] grad[t] . x[s]. The log of dt[s] gets the sum of G over t, that is x[s] . grad_x[s].
    The log decay of token i gets all G with s < i <= t: rows from i on less columns from i on, and sum over
    rows = grad[t] . y[t]. So neither the decays nor the states need gradients of their own. Rows less columns cancel: the
    products must be true fp32, in TF32 the noise would be larger than the gradient.
    """
    k = Chunks(xbc, dt, a, p, chunk)
    fade = k.fade()  # cheaper than fetching it from memory
    grad = grad.unflatten(1, (-1, chunk))
    grad_by_head, x_by_head = k.by_head(grad), k.by_head(k.x)
    grad_xbc = torch.empty_like(xbc)
    grad_x, grad_b, grad_c = k.split(grad_xbc, grad.shape[-1])

    inside = (k.seen(fade).transpose(-1, -2) @ grad_by_head).transpose(2, 3)
    grad_seen = grad_by_head @ x_by_head.transpose(-1, -2)
    grad_cb = grad_seen.mul_(fade).sum(2)
    grad_c.copy_(grad_cb @ k.b_in)
    grad_b.copy_(grad_cb.transpose(-1, -2) @ k.c_out)

    arrived = k.scale(grad[:, 1:], k.from_start[:, 1:])
    grad_states = k.c_out[:, 1:].transpose(-1, -2) @ arrived
    for i in range(grad_states.shape[1] - 1, 0, -1):
        grad_states[:, i - 1].addcmul_(grad_states[:, i], k.whole[:, i])
    grad_c[:, 1:] += arrived @ states.transpose(-1, -2)
    grad_b[:, :-1] += k.scale(k.x[:, :-1], k.to_end[:, :-1]) @ grad_states.transpose(-1, -2)
    added = k.heads(k.b_in[:, :-1] @ grad_states)
    torch.addcmul(inside[:, :-1], added, k.to_end[:, :-1], out=k.heads(grad_x)[:, :-1])
    k.heads(grad_x)[:, -1:] = inside[:, -1:]

    columns = k.heads(k.x * grad_x).sum(-1).flatten(1, 2)  # [b,l,h]
    rows = k.heads(grad * y.view(grad.shape)).sum(-1).flatten(1, 2)
    grad_decay = (rows - columns).flip(1).cumsum(1).flip(1)
    tiny = torch.finfo(dt.dtype).tiny  # dt = 0 where padded
    grad_dt = columns / dt.clamp_min(tiny) + grad_decay * a
    return grad_xbc, grad_dt, (grad_decay * dt).sum((0, 1))


def norm_forward(x, weight, eps):
    """x / rms(x) * weight, and 1 / rms(x)."""
    inverse = torch.rsqrt((x * x).mean(-1, keepdim=True) + eps)
    return (x * inverse).mul_(weight), inverse


def norm_backward(grad, x, weight, inverse):
    """With u = x / rms: grad_x = (grad w - u mean(grad w u)) / rms."""
    u = x * inverse
    product = grad * u
    mean = (product @ weight).unsqueeze(-1) / x.shape[-1]
    grad_x = (grad * weight).addcmul_(u, mean, value=-1).mul_(inverse)
    return grad_x, product.flatten(0, -2).sum(0)


class Norm(torch.autograd.Function):
    """RMSNorm over the last dimension."""

    @staticmethod
    def forward(ctx, x, weight, eps):
        y, inverse = norm_forward(x, weight, eps)
        ctx.save_for_backward(x, weight, inverse)
        return y

    @staticmethod
    def backward(ctx, grad):
        return (*norm_backward(grad, *ctx.saved_tensors), None)


class Mixing(torch.autograd.Function):
    """rows [b,l,2*h*p+2n+h] = (z, x, B, C, dt) of the input projection -> rows [b,l,h*p] for the output projection:

    x, B, C = silu(conv(x, B, C)); dt = softplus(dt + dt_bias); y = scan with D; norm(y * silu(z)) * weight.

    l must be a multiple of chunk. Rows may be bf16, the arithmetic has the parameters' type.
    """

    @staticmethod
    def forward(ctx, rows, w, bias, dt_bias, a, skip, weight, p, chunk, eps):
        out = rows.new_empty(*rows.shape[:2], len(weight))
        ctx.sizes = p, chunk
        ctx.at_once = len(rows) if rows.is_cuda else 1
        tensors = [rows, w, bias, dt_bias, a, skip, weight]
        for part, part_out in zip(rows.split(ctx.at_once), out.split(ctx.at_once)):
            z, xbc, dt = Mixing.split(part, len(weight), len(a), a.dtype)
            xbc = conv_forward(xbc, w, bias)
            gate = xbc.sigmoid()
            xbc *= gate
            dt = F.softplus(dt + dt_bias)
            y, states = scan_forward(xbc, dt, a, p, chunk)
            gated = F.silu(z, inplace=True).mul_(Mixing.skip(y, xbc, skip))
            normed, inverse = norm_forward(gated, weight, eps)
            part_out.copy_(normed)
            tensors += [xbc, gate, dt, y, states, inverse]
        ctx.save_for_backward(*tensors)
        return out

    @staticmethod
    def skip(y, xbc, skip):
        return torch.addcmul(y, xbc[..., :y.shape[-1]], wide(skip, y))

    @staticmethod
    def split(rows, d_inner, h, dtype):
        z, xbc, dt = rows.split([d_inner, rows.shape[-1] - d_inner - h, h], -1)
        return [t.to(dtype, memory_format=torch.contiguous_format, copy=True) for t in (z, xbc, dt)]

    @staticmethod
    def backward(ctx, grad):
        rows, w, bias, dt_bias, a, skip, weight = ctx.saved_tensors[:7]
        saved = ctx.saved_tensors[7:]
        grad_rows = torch.empty_like(rows)
        sums = [torch.zeros_like(t) for t in (w, bias, dt_bias, a, skip, weight)]
        parts = zip(rows.split(ctx.at_once), grad.split(ctx.at_once), grad_rows.split(ctx.at_once))
        for i, (part, part_grad, part_grad_rows) in enumerate(parts):
            xbc, gate, dt, y, states, inverse = saved[6 * i:6 * i + 6]
            z, raw_xbc, raw_dt = Mixing.split(part, len(weight), len(a), a.dtype)
            to_z, to_xbc, to_dt = part_grad_rows.split([z.shape[-1], xbc.shape[-1], dt.shape[-1]], -1)

            z_gate = z.sigmoid()
            silu_z, skipped = z.mul_(z_gate), Mixing.skip(y, xbc, skip)
            grad_gated, grad_weight = norm_backward(part_grad.to(a.dtype), silu_z * skipped, weight, inverse)
            grad_y = grad_gated * silu_z
            to_z.copy_(silu_backward(grad_gated.mul_(skipped), silu_z, z_gate))

            grad_xbc, grad_dt, grad_a = scan_backward(grad_y, y, xbc, dt, a, *ctx.sizes, states)
            d_inner = grad_y.shape[-1]
            grad_skip = (grad_y * xbc[..., :d_inner]).sum((0, 1)).unflatten(-1, (len(a), -1)).sum(-1)
            grad_xbc[..., :d_inner].addcmul_(grad_y, wide(skip, grad_y))
            grad_dt *= (raw_dt + dt_bias).sigmoid()
            to_dt.copy_(grad_dt)
            grad_xbc, grad_w, grad_bias = conv_backward(silu_backward(grad_xbc, xbc, gate), raw_xbc, w)
            to_xbc.copy_(grad_xbc)
            for total, more in zip(sums, (grad_w, grad_bias, grad_dt.sum((0, 1)), grad_a, grad_skip, grad_weight)):
                total += more
        return (grad_rows, *sums, None, None, None)
