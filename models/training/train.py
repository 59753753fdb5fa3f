"""Trains a model on the id files of data.py: one CPU, one GPU, or several under torchrun.

Owns: the loop, the schedule, the log, saving and resuming. Does not know: text, the tokenizer (it only copies and compares
the file), the model's inside, the loss.
The idea: all that a step depends on is the weights, the optimizer and the step's number. A resumed run therefore equals an
uninterrupted one, bit for bit on a CPU.

--out receives config.json, pytorch_model.bin, tokenizer.model (a checkpoint for the converter at any time),
resume.pt (everything to go on) and log.jsonl. SIGTERM saves and ends a run of one process.
"""
import argparse
import filecmp
import inspect
import json
import math
import os
import shutil
import signal
import time

import torch
import torch.distributed as dist

from model import Config, LanguageModel
from windows import Windows

# What may differ when a run goes on. New data or a longer schedule make a new stage, which the log shows.
MAY_CHANGE = ("data", "out", "steps", "stop", "val_every", "val_batches", "log_every", "save_seconds", "threads", "compile", "init")


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


def learning_rate(step, args):
    """Linear warm-up times a cosine from 1 to 0.1."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / args.steps)))
    return args.lr * min(1.0, (step + 1) / max(1, args.warmup)) * (0.1 + 0.9 * cosine)


def make_optimizer(model, args, device):
    """Decay pulls on matrices only; scales, norms, biases and the recurrence's own parameters are free."""
    groups = {True: [], False: []}
    for name, parameter in model.named_parameters():
        groups[parameter.dim() == 2 and not name.endswith(("wscale", "wbias"))].append(parameter)
    groups = [{"params": groups[True], "weight_decay": args.weight_decay}, {"params": groups[False], "weight_decay": 0.0}]
    can_fuse = "fused" in inspect.signature(torch.optim.AdamW).parameters  # torch 2
    fast = {"fused": True} if device.type == "cuda" and can_fuse else {"foreach": device.type == "cuda"}
    return torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.95), **fast)


def load_teacher(args, device):
    """The model to distil from, or None."""
    if not args.teacher:
        return None
    teacher = LanguageModel.load(args.teacher).tune(not args.fp32, args.chunk).to(device).eval().requires_grad_(False)
    if teacher.config.vocab_size != args.vocab:
        raise SystemExit(f"{args.teacher}: a vocabulary of {teacher.config.vocab_size}, want the student's, {args.vocab}")
    mine, its = (os.path.join(folder, "tokenizer.model") for folder in (args.data, args.teacher))
    if not filecmp.cmp(mine, its, shallow=False):
        raise SystemExit(f"{its} is not {mine}: the teacher must read the same tokens")
    return teacher


@torch.no_grad()
def validate(model, windows, args, device):
    losses = [model(x.to(device), y.to(device)).item() for x, y in windows.in_order(8, args.val_batches)]
    return sum(losses) / len(losses)


class Run:
    """Model, optimizer and position, and how they are kept."""

    def __init__(self, args, device, rank, world):
        self.args, self.device, self.rank, self.world = args, device, rank, world
        torch.manual_seed(args.seed)
        config = Config(args.d_model, args.n_layer, args.vocab, ssm_cfg={
            "layer": "Mamba2", "d_state": args.d_state, "headdim": args.headdim})
        self.model = LanguageModel(config, bool(args.binary)).tune(not args.fp32, args.chunk).to(device)
        self.optimizer = make_optimizer(self.model, args, device)
        self.position, self.seconds = 0, 0.0
        self.path = os.path.join(args.out, "resume.pt")
        if os.path.exists(self.path):
            self.resume()
        else:
            if args.init:
                self.model.adopt(LanguageModel.load(args.init))
            if rank == 0:
                os.makedirs(args.out, exist_ok=True)
                shutil.copy(os.path.join(args.data, "tokenizer.model"), args.out)
        forward = self.model
        if args.compile and hasattr(torch, "compile"):
            forward = torch.compile(forward)
        self.forward = torch.nn.parallel.DistributedDataParallel(forward) if world > 1 else forward

    def resume(self):
        kept = torch.load(self.path, map_location=self.device)
        for name, value in vars(self.args).items():
            before = kept["args"].get(name, value)
            if before != value and name not in MAY_CHANGE:
                raise SystemExit(f"{self.path}: --{name.replace('_', '-')} was {before!r}, is {value!r}")
        self.model.load_state_dict(kept["model"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.position, self.seconds = kept["step"], kept["seconds"]

    def save(self):
        if self.rank == 0:
            self.model.save(self.args.out)
            torch.save({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.position,
                        "seconds": self.seconds, "args": vars(self.args)}, self.path + ".part")
            os.replace(self.path + ".part", self.path)

    def log(self, **row):
        if self.rank == 0:
            line = json.dumps({k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()})
            print(line, flush=True)
            with open(os.path.join(self.args.out, "log.jsonl"), "a") as file:
                file.write(line + "\n")

    def step(self, windows, teacher):
        """One step; gives the loss of this process's rows, and the gradient's norm."""
        x, y = windows.step(self.args.seed, self.position, self.args.batch, self.rank, self.world)
        x, y = x.to(self.device), y.to(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.position, self.args)
        if teacher:
            with torch.no_grad():
                wanted = teacher.hidden(x)
            loss = self.forward(x, teacher=wanted)
        else:
            loss = self.forward(x, y)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.position += 1
        return loss.detach(), norm

    def mean(self, losses):
        """The mean over steps and processes. Not a number ends the run before it could be saved."""
        mean = torch.stack(losses).mean()
        if self.world > 1:
            dist.all_reduce(mean)
            mean /= self.world
        if not mean.isfinite():
            raise SystemExit(f"step {self.position}: the loss is {mean.item()}; {self.path} keeps the last good step")
        return mean.item()


def start_processes():
    """Rank, world size and device; one process without torchrun."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    cuda = torch.cuda.is_available()
    if world > 1:
        dist.init_process_group("nccl" if cuda else "gloo")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    return int(os.environ.get("RANK", 0)), world, device


def train(run, teacher, windows, val, ended):
    """To --stop or --steps; `ended` is filled by a signal."""
    args, mark, saved, losses = run.args, time.time(), time.time(), []
    last = args.stop or args.steps
    while run.position < last and not ended:
        loss, norm = run.step(windows, teacher)
        losses.append(loss)
        is_last = run.position == last
        if run.position % args.log_every == 0 or is_last:
            mean, now = run.mean(losses), time.time()
            run.seconds += now - mark
            run.log(step=run.position, tokens=run.position * args.batch * args.length, loss=mean,
                    lr=learning_rate(run.position - 1, args), grad_norm=norm.item(),
                    tokens_per_second=len(losses) * args.batch * args.length / (now - mark), seconds=run.seconds)
            losses, mark = [], now
        if run.position % args.val_every == 0 or is_last:
            run.log(step=run.position, val_loss=validate(run.model, val, args, run.device))
            run.seconds += time.time() - mark
            mark = time.time()
        if time.time() - saved > args.save_seconds and not losses:  # only what was seen to be finite
            run.save()
            saved = time.time()
    if losses:
        run.mean(losses)
    run.save()


def main(argv=None):
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)  # decays fade to denormals, which a CPU multiplies in microcode
    rank, world, device = start_processes()
    if args.batch % world:
        raise SystemExit(f"--batch {args.batch} does not divide over {world} processes")
    windows = Windows(os.path.join(args.data, "train.bin"), args.length, args.vocab)
    val = Windows(os.path.join(args.data, "val.bin"), args.length, args.vocab)
    next(val.in_order(8, 1))
    teacher = load_teacher(args, device)
    run = Run(args, device, rank, world)
    run.log(parameters=sum(p.numel() for p in run.model.parameters()), train_tokens=len(windows.ids), from_step=run.position, **vars(args))
    ended = []
    if world == 1:  # several processes would stop at different steps and wait for each other
        signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    train(run, teacher, windows, val, ended)
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
