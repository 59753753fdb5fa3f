"""Tests of the training recipe, on one CPU, without the corpus: `python3 -m unittest test_training` in this folder.

Owns: what must hold for a run to be trusted. Does not know: whether a trained model is any good (evaluate.py).
The idea: every fast form is compared with the slow one it replaces, and a run with itself after an interruption.
"""
import contextlib
import copy
import io
import json
import os

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # these tests compare bits: on the CPU, the processes they start too
import socket
import subprocess
import sys
import tempfile
import unittest

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import data
import evaluate
import model as m
import plot
import quantize
import scan
import train
from head import HeadLoss
from windows import Windows

HERE = os.path.dirname(os.path.abspath(__file__))
SMALL = ("--d-model 32 --n-layer 2 --d-state 16 --headdim 16 --vocab 48 --length 24 --batch 4 --warmup 5 --steps 40 "
         "--log-every 5 --val-every 20 --val-batches 2").split()
torch.set_num_threads(1)


def tiny(binary, n_layer=2, vocab=50):
    return m.LanguageModel(m.Config(32, n_layer, vocab, ssm_cfg={"layer": "Mamba2", "d_state": 16, "headdim": 16}), binary)


class Forms(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)

    def test_mixing_and_its_gradients_equal_the_recurrence(self):
        h, p, n = 2, 3, 4
        for length in (1, 2, 3, 4, 8, 12):  # shorter than the taps as well
            rows = torch.randn(2, length, 2 * h * p + 2 * n + h).double()
            w, bias = torch.randn(h * p + 2 * n, 4).double(), torch.randn(h * p + 2 * n).double()
            dt_bias, a, skip = torch.randn(h).double(), -torch.rand(h).double() * 4, torch.randn(h).double()
            inputs = [rows, w, bias, dt_bias, a, skip, torch.randn(h * p).double()]
            for tensor in inputs:
                tensor.requires_grad_()
            chunk = min(length, 4)
            got, want = scan.Mixing.apply(*inputs, p, chunk, 1e-5), self.slow_mixing(*inputs, p, n)
            self.assertLess((got - want).abs().max().item(), 1e-12, f"length {length}")
            grad = torch.randn_like(got)
            for i, pair in enumerate(zip(torch.autograd.grad(got, inputs, grad), torch.autograd.grad(want, inputs, grad))):
                self.assertTrue(torch.allclose(*pair, rtol=1e-9, atol=1e-11), f"length {length}, input {i}")
        self.assertTrue(torch.autograd.gradcheck(lambda *t: scan.Mixing.apply(*t, p, 4, 1e-5), inputs))

    @staticmethod
    def slow_mixing(rows, w, bias, dt_bias, a, skip, weight, p, n):
        h, length = len(a), rows.shape[1]
        z, xbc, dt = rows.split([h * p, h * p + 2 * n, h], -1)
        xbc = F.conv1d(F.pad(xbc.transpose(1, 2), (3, 0)), w.unsqueeze(1), bias, groups=len(w)).transpose(1, 2)
        x, b_in, c_out = F.silu(xbc).split([h * p, n, n], -1)
        x, dt = x.unflatten(-1, (h, p)), F.softplus(dt + dt_bias)
        state, y = torch.zeros(len(rows), h, p, n).double(), []
        for t in range(length):
            state = state * torch.exp(dt[:, t] * a)[..., None, None]
            state = state + (dt[:, t, :, None] * x[:, t])[..., None] * b_in[:, t, None, None]
            y.append((state * c_out[:, t, None, None]).sum(-1))
        y = (torch.stack(y, 1) + skip.unsqueeze(-1) * x).flatten(-2) * F.silu(z)
        return y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-5) * weight

    def test_large_decays_neither_overflow_nor_spoil_gradients(self):
        rows = torch.randn(1, 64, 2 * 8 + 2 * 4 + 2)
        rows[..., -2:] += torch.tensor([60.0, -200.0])  # dt of 60, and dt = 0
        ends = [torch.randn(16, 4), torch.randn(16), torch.zeros(2), torch.tensor([-16.0, -1.0]), torch.ones(2), torch.ones(8)]
        inputs = [t.requires_grad_() for t in (rows, *ends)]
        y = scan.Mixing.apply(*inputs, 4, 32, 1e-5)
        for tensor in (y, *torch.autograd.grad(y.sum(), inputs)):
            self.assertTrue(tensor.isfinite().all())

    def test_norm_gradient(self):
        x, weight = torch.randn(2, 3, 5).double().requires_grad_(), torch.randn(5).double().requires_grad_()
        self.assertTrue(torch.autograd.gradcheck(lambda *t: scan.Norm.apply(*t, 1e-5), (x, weight)))
        want = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * weight
        self.assertLess((scan.Norm.apply(x, weight, 1e-5) - want).abs().max().item(), 1e-12)

    def test_sequence_equals_steps(self):
        for binary in (False, True):
            model = tiny(binary).double().tune(bf16=False, chunk=8)
            ids, states, rows = torch.randint(0, 50, (2, 21)), None, []
            for t in range(21):
                logits, states = model.step(ids[:, t], states)
                rows.append(logits)
            worst = (model(ids) - torch.stack(rows, 1)).abs().max().item()
            self.assertLess(worst, 1e-11, f"binary {binary}")

    def test_sequence_equals_steps_in_bf16(self):
        model = tiny(True).tune(bf16=True, chunk=8)
        ids, states, rows = torch.randint(0, 50, (2, 21)), None, []
        with torch.no_grad():
            want = model(ids)
            for t in range(21):
                logits, states = model.step(ids[:, t], states)
                rows.append(logits)
        self.assertLess(((want - torch.stack(rows, 1)).norm() / want.norm()).item(), 0.01)

    def test_binary_weight_and_its_gradients(self):
        w = torch.randn(6, 4).double().requires_grad_()
        scale, bias = torch.randn(1, 4).double().requires_grad_(), torch.randn(1, 4).double().requires_grad_()
        self.assertTrue(torch.equal(m.Binarize.apply(w, scale, bias), scale * w.sign() + bias))
        grad = torch.randn(6, 4).double()
        got = torch.autograd.grad(m.Binarize.apply(w, scale, bias), (w, scale, bias), grad)
        want = torch.autograd.grad(w.sign().detach() * scale + bias, (scale, bias), grad)
        self.assertTrue(torch.allclose(got[0], grad * scale))
        self.assertTrue(torch.allclose(got[1], want[0]) and torch.allclose(got[2], want[1]))

    def test_initial_scales(self):
        layer = m.Linear(16, 40, binary=True)
        w = layer.weight.detach()
        self.assertTrue(torch.allclose(layer.wbias, w.mean(0, keepdim=True)))
        self.assertTrue(torch.allclose(layer.wscale, (w - w.mean(0)).abs().mean(0, keepdim=True)))

    def test_head_loss_equals_cross_entropy(self):
        hidden, labels = torch.randn(2, 150, 16, requires_grad=True), torch.randint(0, 50, (2, 150))
        weight, other, its_weight = torch.randn(50, 16, requires_grad=True), torch.randn(2, 150, 8), torch.randn(50, 8)
        logits = m.Bf16Matmul.apply(hidden, weight).float().flatten(0, 1)
        wanted = F.softmax(m.Bf16Matmul.apply(other, its_weight).float(), -1).flatten(0, 1)
        for fused, plain in ((HeadLoss.apply(hidden, weight, labels), F.cross_entropy(logits, labels.flatten())),
                             (HeadLoss.apply(hidden, weight, None, other, its_weight), F.cross_entropy(logits, wanted))):
            self.assertAlmostEqual(fused.item(), plain.item(), places=3)
            want = torch.autograd.grad(plain, (hidden, weight), retain_graph=True)
            for got, want in zip(torch.autograd.grad(fused, (hidden, weight)), want):
                self.assertLess(((got - want).norm() / want.norm()).item(), 0.01)  # bf16 keeps 8 bits


class Checkpoint(unittest.TestCase):
    def test_names_and_shapes(self):
        names = {name: tuple(t.shape) for name, t in tiny(True, n_layer=1).state_dict().items()}
        layer = "backbone.layers.0."
        self.assertEqual(names, {
            "backbone.embedding.weight": (64, 32), "backbone.norm_f.weight": (32,), "lm_head.weight": (64, 32),
            layer + "norm.weight": (32,), layer + "mixer.norm.weight": (64,),
            layer + "mixer.in_proj.weight": (164, 32), layer + "mixer.in_proj.wscale": (1, 32), layer + "mixer.in_proj.wbias": (1, 32),
            layer + "mixer.out_proj.weight": (32, 64), layer + "mixer.out_proj.wscale": (1, 64), layer + "mixer.out_proj.wbias": (1, 64),
            layer + "mixer.conv1d.weight": (96, 1, 4), layer + "mixer.conv1d.bias": (96,),
            layer + "mixer.dt_bias": (4,), layer + "mixer.A_log": (4,), layer + "mixer.D": (4,)})

    def test_save_and_load(self):
        ids = torch.randint(0, 50, (1, 9))
        for binary in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                model = tiny(binary)
                model.save(folder)
                again = m.LanguageModel.load(folder)
            self.assertEqual(again.binary, binary)
            self.assertTrue(torch.equal(model(ids), again(ids)))
            self.assertEqual(model(ids).shape[-1], 50, "padded rows must not appear")


class Running(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        rng = np.random.RandomState(0)
        for part, count in (("train", 4000), ("val", 1000)):  # a text with a rule: each id follows from the last
            ids = np.cumsum(rng.randint(1, 3, count)) % 48
            ids.astype(np.uint16).tofile(self.path(part + ".bin"))
        open(self.path("tokenizer.model"), "w").close()

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def train(self, out, *more):
        arguments = ["--data", self.folder.name, "--out", self.path(out), *SMALL, *more]
        with contextlib.redirect_stdout(io.StringIO()):
            train.main(arguments)
        with open(self.path(out + "/log.jsonl")) as file:
            return [json.loads(line) for line in file]

    def test_loss_falls(self):
        for binary in ("0", "1"):
            losses = [row["loss"] for row in self.train("falls" + binary, "--binary", binary) if "loss" in row]
            self.assertLess(losses[-1], losses[0] - 0.5, f"binary {binary}: {losses}")

    def test_resumed_run_equals_uninterrupted(self):
        self.train("whole")
        self.train("parts", "--stop", "17")
        self.train("parts")
        whole, parts = (torch.load(self.path(n + "/resume.pt")) for n in ("whole", "parts"))
        self.assertEqual(whole["step"], parts["step"])
        for name, tensor in whole["model"].items():
            self.assertTrue(torch.equal(tensor, parts["model"][name]), name)
        for key, state in whole["optimizer"]["state"].items():
            self.assertTrue(torch.equal(state["exp_avg_sq"], parts["optimizer"]["state"][key]["exp_avg_sq"]))

    def test_distillation_from_a_teacher(self):
        longer = ("--steps", "120", "--lr", "1e-2")
        self.train("teacher", "--binary", "0", *longer)
        rows = self.train("student", "--teacher", self.path("teacher"), *longer)
        losses = [row["loss"] for row in rows if "loss" in row]
        self.assertLess(losses[-1], losses[0] - 0.5)
        self.assertLess(rows[-1]["val_loss"], 3.0)  # without ever seeing a label; guessing has log 48 = 3.87

    def test_what_does_not_fit_is_named(self):
        self.train("run", "--stop", "3")
        for more, message in ((("--batch", "8"), "--batch was 4, is 8"), (("--d-model", "64"), "--d-model was 32, is 64"),
                              (("--teacher", self.path("run")), "--teacher was '', is")):
            with self.assertRaisesRegex(SystemExit, message):
                self.train("run", *more)
        with self.assertRaisesRegex(SystemExit, "has id 47, the vocabulary is 40"):
            self.train("small", "--vocab", "40")
        with self.assertRaisesRegex(SystemExit, "embedding.weight is .*, want"):
            self.train("wide", "--init", self.path("run"), "--d-model", "64")
        with open(self.path("run/tokenizer.model"), "w") as file:
            file.write("another")
        with self.assertRaisesRegex(SystemExit, "must read the same tokens"):
            self.train("student", "--teacher", self.path("run"))
        np.zeros(30, np.uint16).tofile(self.path("val.bin"))
        with self.assertRaisesRegex(SystemExit, "val.bin: 30 tokens, want at least"):
            self.train("short")

    def test_starts_from_a_dense_checkpoint(self):
        self.train("dense", "--binary", "0")
        self.train("started", "--init", self.path("dense"), "--steps", "1", "--lr", "0")
        dense, started = (m.LanguageModel.load(self.path(n)).state_dict() for n in ("dense", "started"))
        for name, tensor in dense.items():
            want = tensor - tensor.mean(0, keepdim=True) if name.endswith("_proj.weight") else tensor
            self.assertTrue(torch.equal(started[name], want), name)

    def test_two_processes_train_as_one(self):
        self.train("teacher", "--binary", "0")
        for name, more, places in (("labels", ("--fp32",), 3), ("teacher", ("--teacher", self.path("teacher")), 2)):  # the latter in bf16
            alone = self.train("alone-" + name, *more)
            for stop in ("17", "0"):  # in two pieces: resuming is part of it
                self.train_in_two("both-" + name, *more, "--stop", stop)
            with open(self.path(f"both-{name}/log.jsonl")) as file:
                both = [json.loads(line) for line in file]
            for key in ("loss", "val_loss"):
                mine, its = ({row["step"]: row[key] for row in rows if key in row} for rows in (both, alone))
                for step in its:
                    if (key, step) == ("loss", 20):
                        continue  # a mean over steps 16 to 20, or since the run went on
                    self.assertAlmostEqual(mine[step], its[step], places=places, msg=f"{name}, {key}, step {step}")

    def train_in_two(self, out, *more):
        arguments = [sys.executable, os.path.join(HERE, "train.py"), "--data", self.folder.name, "--out", self.path(out), *SMALL, *more]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        about = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # what torchrun sets
        started = [subprocess.Popen(arguments, env={**about, "RANK": str(r), "LOCAL_RANK": str(r)}, stdout=subprocess.DEVNULL)
                   for r in range(2)]
        try:
            self.assertEqual([process.wait(300) for process in started], [0, 0])
        finally:
            for process in started:
                process.kill()

    def test_windows_are_served_once_per_epoch_to_all_ranks(self):
        windows = Windows(self.path("train.bin"), 24)
        seen = []
        for step in range(windows.count // 4):
            both = [windows.step(3, step, 4, rank, 2)[0] for rank in range(2)]
            alone = windows.step(3, step, 4, 0, 1)[0]
            self.assertTrue(torch.equal(torch.stack(both, 1).flatten(0, 1), alone))
            seen += [tuple(row.tolist()) for row in alone]
        self.assertEqual(len(seen), len(set(seen)))

    def test_plot_is_drawn(self):
        self.train("drawn")
        drawn = plot.draw({"drawn": plot.read(self.path("drawn/log.jsonl"))})
        self.assertEqual(drawn.count("<polyline"), 2)


class Measuring(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)

    def test_protocol(self):
        class Letters:
            def encode(self, text):
                return [ord(letter) % 50 for letter in text]

        model, text = tiny(True), "abcdefghijklmnopqrstuvwxyz" * 4 + "\u00e9"  # bos + 105 letters: 5 windows of 20
        found = evaluate.protocol(model, Letters(), text, 20)
        ids, losses = torch.tensor([1, *Letters().encode(text)]), []
        for start in range(0, 100, 20):
            logits = model(ids[None, start:start + 19])[0]
            losses.append(F.cross_entropy(logits, ids[start + 1:start + 20]).item())
        nats = sum(losses) / 5
        self.assertEqual((found["windows"], found["tokens"]), (5, 106))
        self.assertAlmostEqual(found["nats_per_token"], nats, places=4)
        self.assertAlmostEqual(found["bits_per_byte"], nats / np.log(2) * 106 / 106, places=4)

    def test_sign_is_the_one_bit_form(self):
        dense = tiny(False)
        weight = dense.backbone.layers[0].mixer.in_proj.weight.detach().clone()
        shrunk = quantize.shrink(dense, "sign")
        layer = shrunk.backbone.layers[0].mixer.in_proj
        want = (weight - weight.mean(0)).sign() * (weight - weight.mean(0)).abs().mean(0) + weight.mean(0)
        self.assertTrue(torch.allclose(m.Binarize.apply(layer.weight, layer.wscale, layer.wbias), want, atol=1e-6))
        with tempfile.TemporaryDirectory() as folder:
            shrunk.save(folder)
            self.assertTrue(m.LanguageModel.load(folder).binary)

    def test_gptq_keeps_outputs_better_than_rounding(self):
        x, weight = torch.randn(400, 128) @ torch.randn(128, 128), torch.randn(20, 128)
        for bits in (2, 3):
            near, better = quantize.round_nearest(weight, bits), quantize.gptq(weight, x.t() @ x, bits)
            for rounded in (near, better):
                self.assertLessEqual(max(len(group.unique()) for row in rounded for group in row.split(quantize.GROUP)), 2 ** bits)
            errors = [((rounded - weight) @ x.t()).norm().item() for rounded in (near, better)]
            self.assertLess(errors[1], 0.8 * errors[0])

    def test_gptq_of_a_model_beats_rounding(self):
        model, ids = tiny(False), torch.randint(0, 50, (8, 60))
        rounded = [quantize.shrink(copy.deepcopy(model), method, 3, [ids]) for method in ("round", "gptq")]
        near, better = ((other.hidden(ids)[0] - model.hidden(ids)[0]).norm().item() for other in rounded)
        self.assertLess(better, near)

    def test_grams_are_those_of_the_inputs(self):
        model, ids = tiny(False), torch.randint(0, 50, (2, 9))
        first = model.backbone.layers[0]
        grams = quantize.input_grams(model, {"in": first.mixer.in_proj}, [ids, ids])
        rows = first.norm(model.backbone.embedding(ids)).flatten(0, 1)
        self.assertTrue(torch.allclose(grams["in"], 2 * rows.t() @ rows, atol=1e-5))


class Documents(unittest.TestCase):
    def story(self, i):
        return f"Once upon a time, number {chr(97 + i % 26)}{chr(97 + i // 26)} went for a walk in the woods. " * 8 + "The end."

    def test_clean(self):
        story = self.story(0)
        self.assertEqual(data.clean("\n" + story + "\n"), story)
        self.assertEqual(data.clean("(wind howls)\n" + story.replace("walk", "\u201cwalk\u201d")), story.replace("walk", '"walk"'))
        for bad in (story[:100], "# Title\n" + story, "**A** " + story, story + " and then", "- " + story):
            self.assertIsNone(data.clean(bad))

    def test_from_folder_to_ids(self):
        stories = [self.story(i) for i in range(60)]
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as out:
            with open(os.path.join(folder, "mine.md"), "w") as file:
                for story in [*stories, stories[0], stories[1].upper()]:
                    file.write(f"Tell a story.<start>{story}<end>\n\n")
            found, dropped, double = data.collect(folder, set(data.KINDS))
            self.assertEqual((len(found), dropped, double), (60, 0, 2))
            train_part, val_part = data.split(found, 200)
            self.assertTrue(val_part and not set(train_part) & set(val_part))
            tokenizer = data.train_tokenizer(train_part.values(), os.path.join(out, "tokenizer"), 320, 10 ** 6)
            self.assertEqual((tokenizer.unk_id(), tokenizer.bos_id(), tokenizer.eos_id()), (0, 1, 2))
            text = "Tab\tand\nline, 1984, \u00e9\u4e2d."
            self.assertEqual(tokenizer.decode(tokenizer.encode(text)), text)
            for part, texts in (("train", train_part), ("val", val_part)):
                data.write_ids(tokenizer, texts.values(), os.path.join(out, part + ".bin"))
            self.assertEqual(data.check(tokenizer, out), {"train": len(train_part), "val": len(val_part)})
            data.write_ids(tokenizer, found.values(), os.path.join(out, "val.bin"))
            with self.assertRaises(SystemExit):
                data.check(tokenizer, out)


if __name__ == "__main__":
    unittest.main()
