"""Measures a checkpoint: on validation ids, on a text by the paper's protocol, on names, and by telling stories.

Owns: validation loss in nats per token, perplexity, bits per byte, and sampling at fixed seeds.
Does not know: how the checkpoint was made, or which documents the ids come from.
The idea: loss is computed on sequences, text is made token by token with the recurrence. Two forms of the same
model: were one wrong, a good loss would come with bad text.
"""
import argparse
import json
import math
import os

import numpy as np
import sentencepiece
import torch

import names
from data import BOS, EOS, documents
from model import LanguageModel
from windows import Windows


@torch.no_grad()
def validation(model, folder, tokenizer, length, batches):
    """Windows without overlap, state from zero in each. Bits per byte count bos and eos as tokens without bytes."""
    windows = Windows(os.path.join(folder, "val.bin"), length)
    losses = [model(x, y).item() for x, y in windows.in_order(8, batches or windows.count)]
    nats = sum(losses) / len(losses)
    ids = windows.ids.tolist()
    size = sum(len(tokenizer.decode(document).encode()) for document in documents(ids))
    return {"windows": 8 * len(losses), "length": length, "nats_per_token": round(nats, 4), "perplexity": round(math.exp(nats), 3),
            "bits_per_byte": round(nats / math.log(2) * len(ids) / size, 4)}


@torch.no_grad()
def protocol(model, tokenizer, text, window):
    """Perplexity as in the Bi-Mamba paper, and as `bimamba perplexity` computes it: the text tokenized once, BOS before it; windows
    without overlap, the rest dropped, the state zero at the start of each; exp of the mean over windows of a window's mean loss."""
    ids = torch.tensor([BOS, *tokenizer.encode(text)])
    windows = ids[:len(ids) // window * window].view(-1, window)
    if len(windows) == 0:
        raise SystemExit(f"the text has {len(ids)} tokens, want at least a window of {window}")
    losses = [model(part[:, :-1], part[:, 1:]).item() * len(part) for part in windows.split(8)]
    nats = sum(losses) / len(windows)
    return {"tokens": len(ids), "windows": len(windows), "window": window, "nats_per_token": round(nats, 5),
            "perplexity": round(math.exp(nats), 4), "bits_per_byte": round(nats / math.log(2) * len(ids) / len(text.encode()), 5)}


def sample(model, tokenizer, prompt, tokens, temperature, top_k, seed):
    rng = np.random.RandomState(seed)
    ids, states = [BOS, *tokenizer.encode(prompt)], None
    for token in ids:
        logits, states = model.step(torch.tensor([token]), states)
    for _ in range(tokens):
        values, choice = logits[0].topk(top_k)
        heap = torch.softmax(values.double() / temperature, -1).cumsum(-1)
        token = int(choice[int((heap < rng.random_sample() * heap[-1]).sum())])
        if token == EOS:
            break
        ids.append(token)
        logits, states = model.step(torch.tensor([token]), states)
    return tokenizer.decode(ids[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", help="folder with config.json, pytorch_model.bin, tokenizer.model")
    parser.add_argument("--data", help="folder with val.bin; without it only samples are printed")
    parser.add_argument("--text", help="UTF-8 file to measure on by the paper's protocol")
    parser.add_argument("--window", type=int, default=2048, help="tokens in a window, for --text")
    parser.add_argument("--names", type=int, default=0, help="documents of val.bin on which to measure the loss on names that return")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--batches", type=int, default=0, help="batches of 8 windows; 0: all")
    parser.add_argument("--fp32", action="store_true", help="no bf16 in the projections")
    parser.add_argument("--prompt", default="Once upon a time")
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=250)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--top-k", type=int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    model = LanguageModel.load(args.checkpoint).tune(not args.fp32).eval()
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=os.path.join(args.checkpoint, "tokenizer.model"))
    if args.names and not args.data:
        raise SystemExit("--names needs --data, the documents to measure on")
    if args.data:
        print(json.dumps(validation(model, args.data, tokenizer, args.length, args.batches)))
        if args.names:
            ids = np.fromfile(os.path.join(args.data, "val.bin"), dtype=np.uint16).tolist()
            texts = list(documents(ids))[:args.names]
            loss, count = names.loss_on_repeated(model, tokenizer, texts, BOS)
            print(json.dumps({"names_that_return": count, "nats": round(loss, 4),
                              "names_per_story": round(names.per_story(map(tokenizer.decode, texts)), 3)}))
    if args.text:
        with open(args.text, encoding="utf-8", newline="") as file:
            print(json.dumps(protocol(model, tokenizer, file.read(), args.window)))
    model.tune(bf16=False)
    for seed in range(args.samples):
        text = sample(model, tokenizer, args.prompt, args.tokens, args.temperature, args.top_k, seed)
        print(f"\n--- seed {seed}\n{text}")


if __name__ == "__main__":
    main()
