"""Windows of token ids: what a training step sees, and what validation is measured on.

Owns: reading an id file and which windows make up a step. Does not know: models, processes.
The idea: the windows of step s are a pure function of the seed and s, so resuming needs no replay and every process of a
distributed run finds its own rows.
"""
import numpy as np
import torch


class Windows:
    """Cuts the ids into windows of length + 1 and serves them, each once per epoch in a new order and at a new offset."""

    def __init__(self, path, length, vocab=None):
        self.path, self.length = path, length
        self.ids = np.fromfile(path, dtype=np.uint16)
        self.count = (len(self.ids) - 1) // length - 1  # one is lost to the offset
        if self.count < 1:
            raise SystemExit(f"{path}: {len(self.ids)} tokens, want at least {2 * length + 1}")
        if vocab is not None and self.ids.max() >= vocab:
            raise SystemExit(f"{path}: has id {self.ids.max()}, the vocabulary is {vocab}: is --vocab the tokenizer's?")
        self.epoch = None

    def take(self, starts):
        """(ids, labels), each [len(starts), length]."""
        rows = np.stack([self.ids[s:s + self.length + 1] for s in starts]).astype(np.int64)
        rows = torch.from_numpy(rows)
        return rows[:, :-1], rows[:, 1:]

    def step(self, seed, step, batch, rank, world):
        """The rows of one process in a step of `batch` rows over all."""
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
        """The first windows without overlap: the same set for every run."""
        if self.count < batch:
            raise SystemExit(f"{self.path}: {len(self.ids)} tokens, want at least {(batch + 1) * self.length + 1}")
        for i in range(min(batches, self.count // batch)):
            yield self.take([(i * batch + j) * self.length for j in range(batch)])
