"""Trains a model on the id files of data.py: one CPU, one GPU, or several under torchrun.

Owns: the loop, the loss (labels, or a teacher's distribution), the schedule, the log, saving and resuming.
Does not know: text, the tokenizer (it only copies the file beside the checkpoint), the model's inside.
The idea: which windows make up step s is a pure function of seed and s. Resuming therefore needs no replay, every
process of a distributed run draws its own rows, and a resumed run equals an uninterrupted one bit for bit.

--out receives config.json, pytorch_model.bin, tokenizer.model (a checkpoint for the converter at any time),
resume.pt (everything to go on) and log.jsonl. SIGTERM saves and ends a run of one process.
"""
import argparse
import json
import math
import os
import shutil
import signal
import time

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F

from model import Config, LanguageModel


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--data", required=True, help="folder with train.bin, val.bin, tokenizer.model")
    add("--out", required=True, help="checkpoint folder; if it holds resume.pt the run goes on from there")
    add("--teacher", default="", help="checkpoint folder of a trained model: distil from it instead of the labels")
    add("--init", default="", help="checkpoint folder of the same shape to start from, dense or 1-bit")
    add("--binary", type=int, default=1, help="1: 1-bit projections; 0: full precision")
    add("--d-model", type=int, default=256)
    add("--n-layer", type=int, default=6)
    add("--d-state", type=int, default=64)
    add("--headdim", type=int, default=64)
    add("--vocab", type=int, default=4096)
    add("--length", type=int, default=512, help="tokens in a sequence")
    add("--batch", type=int, default=4, help="sequences in a step, over all processes")
    add("--steps", type=int, required=True)
    add("--stop", type=int, default=0, help="end early after this step; the schedule stays that of --steps")
    add("--lr", type=float, default=3e-3)
    add("--warmup", type=int, default=100)
    add("--weight-decay", type=float, default=0.1)
    add("--seed", type=int, default=1)
    add("--val-every", type=int, default=250)
    add("--val-batches", type=int, default=16)
    add("--log-every", type=int, default=20)
    add("--save-seconds", type=float, default=180)
    add("--threads", type=int, default=1)
    add("--chunk", type=int, default=64, help="tokens per chunk of the scan")
    add("--fp32", action="store_true", help="no bf16 in the projections")
    add("--compile", action="store_true", help="torch.compile, where torch has it")
    return parser.parse_args(argv)


class Windows:
    """Cuts the ids into windows of length + 1 and serves them, each once per epoch in a new order and at a new offset."""

    def __init__(self, path, length):
        self.ids = np.fromfile(path, dtype=np.uint16)
        self.length = length
        self.count = (len(self.ids) - 1) // length - 1  # one is lost to the offset
        if self.count < 1:
            raise SystemExit(f"{path}: {len(self.ids)} tokens, want at least {2 * length + 1}")
        self.epoch = None

    def take(self, starts):
        rows = np.stack([self.ids[s:s + self.length + 1] for s in starts]).astype(np.int64)
        rows = torch.from_numpy(rows)
        return rows[:, :-1], rows[:, 1:]

    def step(self, seed, step, batch, rank, world):
        starts = []
        for row in range(step * batch + rank, (step + 1) * batch, world):
            epoch, index = divmod(row, self.count)
            if self.epoch != (seed, epoch):
                rng = np.random.RandomState([seed, epoch])
                self.offset, self.order = rng.randint(self.length), rng.permutation(self.count)
                self.epoch = (seed, epoch)
            starts.append(self.offset + self.length * int(self.order[index]))
        return self.take(starts)

    def in_order(self, batch, batches):
        """The first windows without overlap: the same validation set for every run."""
        for i in range(min(batches, self.count // batch)):
            yield self.take([(i * batch + j) * self.length for j in range(batch)])


def learning_rate(step, args):
    """Linear warm-up times a cosine from 1 to 0.1."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / args.steps)))
    return args.lr * min(1.0, (step + 1) / args.warmup) * (0.1 + 0.9 * cosine)


def make_optimizer(model, args, device):
    """Decay pulls on matrices only; scales, norms, biases and the recurrence's own parameters are free."""
    groups = {True: [], False: []}
    for name, parameter in model.named_parameters():
        groups[parameter.dim() == 2 and not name.endswith(("wscale", "wbias"))].append(parameter)
    groups = [{"params": groups[True], "weight_decay": args.weight_decay}, {"params": groups[False], "weight_decay": 0.0}]
    fast = {"fused": True} if device.type == "cuda" else {"foreach": False}
    return torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.95), **fast)


@torch.no_grad()
def validate(model, windows, args, device):
    losses = [model(x.to(device), y.to(device)).item() for x, y in windows.in_order(8, args.val_batches)]
    return sum(losses) / len(losses)


class Run:
    """Model, optimizer and position, and how they are kept."""

    def __init__(self, args, device, chief):
        self.args, self.device, self.chief = args, device, chief
        torch.manual_seed(args.seed)
        config = Config(args.d_model, args.n_layer, args.vocab, ssm_cfg={
            "layer": "Mamba2", "d_state": args.d_state, "headdim": args.headdim})
        self.model = LanguageModel(config, bool(args.binary)).tune(not args.fp32, args.chunk).to(device)
        if args.init:
            self.model.adopt(LanguageModel.load(args.init))
        self.optimizer = make_optimizer(self.model, args, device)
        self.position, self.seconds = 0, 0.0
        self.path = os.path.join(args.out, "resume.pt")
        if os.path.exists(self.path):
            kept = torch.load(self.path, map_location=device)
            self.model.load_state_dict(kept["model"])
            self.optimizer.load_state_dict(kept["optimizer"])
            self.position, self.seconds = kept["step"], kept["seconds"]
            torch.set_rng_state(kept["rng"].cpu())
        elif chief:
            os.makedirs(args.out, exist_ok=True)
            shutil.copy(os.path.join(args.data, "tokenizer.model"), args.out)

    def save(self):
        if not self.chief:
            return
        self.model.save(self.args.out)
        torch.save({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.position,
                    "seconds": self.seconds, "rng": torch.get_rng_state()}, self.path + ".part")
        os.replace(self.path + ".part", self.path)

    def log(self, **row):
        if self.chief:
            line = json.dumps({k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()})
            print(line, flush=True)
            with open(os.path.join(self.args.out, "log.jsonl"), "a") as file:
                file.write(line + "\n")


def start_processes():
    """Rank, world size and device; one process without torchrun."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    cuda = torch.cuda.is_available()
    if world > 1:
        dist.init_process_group("nccl" if cuda else "gloo")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = True
    return int(os.environ.get("RANK", 0)), world, device


def main(argv=None):
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)  # decays fade to denormals, which a CPU multiplies in microcode
    rank, world, device = start_processes()
    if args.batch % world:
        raise SystemExit(f"--batch {args.batch} does not divide over {world} processes")
    run = Run(args, device, chief=rank == 0)
    forward = run.model
    if args.compile and hasattr(torch, "compile"):
        forward = torch.compile(forward)
    if world > 1:
        forward = torch.nn.parallel.DistributedDataParallel(forward)
    teacher = LanguageModel.load(args.teacher).tune(not args.fp32, args.chunk).to(device).eval() if args.teacher else None
    train = Windows(os.path.join(args.data, "train.bin"), args.length)
    val = Windows(os.path.join(args.data, "val.bin"), args.length)
    ended = []
    if world == 1:  # several processes would stop at different steps and wait for each other
        signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    if run.position == 0:
        parameters = {id(p): p.numel() for p in run.model.parameters()}
        run.log(parameters=sum(parameters.values()), train_tokens=len(train.ids), **vars(args))

    last = args.stop or args.steps
    mark = saved = time.time()
    losses = []
    while run.position < last and not ended:
        x, y = train.step(args.seed, run.position, args.batch, rank, world)
        x, y = x.to(device), y.to(device)
        rate = learning_rate(run.position, args)
        for group in run.optimizer.param_groups:
            group["lr"] = rate
        if teacher:
            with torch.no_grad():
                wanted = teacher.hidden(x)
            loss = forward(x, teacher=wanted)
        else:
            loss = forward(x, y)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
        run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)
        run.position += 1
        losses.append(loss.detach())

        if run.position % args.log_every == 0 or run.position == last:
            mean, now = torch.stack(losses).mean().item(), time.time()
            run.seconds += now - mark
            run.log(step=run.position, tokens=run.position * args.batch * args.length, loss=mean, lr=rate,
                    grad_norm=norm.item(), tokens_per_second=len(losses) * args.batch * args.length / (now - mark),
                    seconds=run.seconds)
            losses, mark = [], now
        if run.position % args.val_every == 0 or run.position == last:
            run.log(step=run.position, val_loss=validate(run.model, val, args, device))
            run.seconds += time.time() - mark
            mark = time.time()
        if time.time() - saved > args.save_seconds:
            run.save()
            saved = time.time()
    run.save()
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
