"""Shrinks a trained full-precision checkpoint without training: what a 1-bit model has to beat.

Owns: three ways to round the projections of a dense model. Does not know: how the result is measured (evaluate.py).
  sign   1 bit: sign with a mean-abs scale and a mean offset per input column, the very form of a Bi-Mamba, so that the
         result is a 1-bit checkpoint like any other
  round  k bits: each group of 64 inputs of a row to the nearest of 2^k levels between its least and its greatest
  gptq   k bits on the same grid, column after column, each column's error spread over those not rounded yet so that the
         outputs on a calibration text change least (Frantar et al., arXiv 2210.17323, without its block form)
The idea: a pass with hooks collects X^T X of a projection's input; the rest is linear algebra on one matrix at a time. On the CPU.
"""
import argparse
import os
import shutil

import torch

from model import LanguageModel, Linear
from windows import Windows

GROUP = 64  # inputs that share a scale and an offset, both kept in 16 bits: 0.5 bit a weight


def grid(weight, bits):
    """Scale and offset of each row of a group [out,GROUP], as 16-bit floats keep them: its values lie on 0 ... 2^bits - 1."""
    low, high = weight.amin(1, keepdim=True), weight.amax(1, keepdim=True)
    scale = ((high - low) / (2 ** bits - 1)).clamp(min=1e-6)
    return scale.half().to(weight.dtype), low.half().to(weight.dtype)


def to_grid(weight, scale, low, bits):
    return ((weight - low) / scale).round().clamp(0, 2 ** bits - 1) * scale + low


def round_nearest(weight, bits):
    groups = weight.split(GROUP, 1)
    return torch.cat([to_grid(group, *grid(group, bits), bits) for group in groups], 1)


def gptq(weight, gram, bits, damp=0.01):
    """weight [out,in], gram [in,in] = X^T X of the calibration inputs."""
    weight, size = weight.double().clone(), weight.shape[1]
    gram = gram.double() + torch.eye(size) * damp * gram.diagonal().mean()
    spread = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(gram)), upper=True)
    for i in range(size):
        if i % GROUP == 0:
            scale, low = grid(weight[:, i:i + GROUP], bits)
        rounded = to_grid(weight[:, i:i + 1], scale, low, bits)
        error = (weight[:, i:i + 1] - rounded) / spread[i, i]
        weight[:, i:i + 1] = rounded
        weight[:, i + 1:] -= error * spread[i, i + 1:]
    return weight.float()


@torch.no_grad()
def input_grams(model, layers, batches):
    """{name: X^T X of its inputs} of some projections {name: layer} over the batches of ids."""
    grams, hooks = {}, []
    for name, layer in layers.items():
        def collect(_layer, inputs, _output, name=name):
            rows = inputs[0].flatten(0, -2)
            grams[name] = grams.get(name, 0) + rows.t() @ rows
        hooks.append(layer.register_forward_hook(collect))
    for ids in batches:
        model.hidden(ids)
    for hook in hooks:
        hook.remove()
    return grams


@torch.no_grad()
def shrink(model, method, bits=1, batches=()):
    """A dense model with its projections rounded; `sign` gives a 1-bit model. gptq goes block by block, each calibrated on what
    the rounded blocks before it give."""
    if method == "sign":
        small = LanguageModel(model.config, binary=True)
        small.adopt(model)
        return small
    for block in model.backbone.layers:
        layers = {name: layer for name, layer in block.named_modules() if isinstance(layer, Linear)}
        grams = input_grams(model, layers, batches) if method == "gptq" else {}
        for name, layer in layers.items():
            rounded = gptq(layer.weight, grams[name], bits) if method == "gptq" else round_nearest(layer.weight, bits)
            layer.weight.copy_(rounded)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", help="folder of a full-precision checkpoint")
    parser.add_argument("out", help="folder for the result")
    parser.add_argument("--method", choices=("sign", "round", "gptq"), default="sign")
    parser.add_argument("--bits", type=int, default=2, help="for round and gptq")
    parser.add_argument("--data", help="folder with train.bin, for gptq's calibration")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    model = LanguageModel.load(args.checkpoint).eval()
    if model.binary:
        raise SystemExit(f"{args.checkpoint}: its projections are 1-bit already, want a full-precision checkpoint")
    batches = []
    if args.method == "gptq":
        if not args.data:
            raise SystemExit("--data is missing: gptq calibrates on train.bin")
        batches = [x for x, _ in Windows(os.path.join(args.data, "train.bin"), 512).in_order(8, 16)]
    shrink(model, args.method, args.bits, batches).save(args.out)
    shutil.copy(os.path.join(args.checkpoint, "tokenizer.model"), args.out)


if __name__ == "__main__":
    main()
