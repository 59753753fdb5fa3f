"""Who is in a story: the measure of whether a model keeps its characters.

Owns: finding names in English text, names per story, and the loss on names that a story has used before.
Does not know: how a text came about, or the list of names in the grammar; it measures any stories alike.
The idea: a name is a word that is capitalised inside a sentence. A story about two friends has two of them however long it
is, and a model that forgets brings in new ones. Where a known name returns, the loss says whether the model knew whom it talks about.

    python3 names.py TOLD.jsonl --data WORK/data      names per story, by temperature, beside real stories of the same length
"""
import argparse
import json
import os
import re
from bisect import bisect_left

import numpy as np
import sentencepiece
import torch
import torch.nn.functional as F

from data import documents

INSIDE = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]+")  # after a word or a comma: no sentence, no speech begins here
WORD = re.compile(r"[A-Z][a-z]+")
NOT_NAMES = frozenset(
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February March April May July August September "
    "October November December Christmas English Mr Mrs Dr Miss".split())


def names_in(text):
    """The distinct names of a story."""
    return {word for word in INSIDE.findall(text) if word not in NOT_NAMES}


def per_story(texts):
    """Mean number of distinct names."""
    return float(np.mean([len(names_in(text)) for text in texts]))


def repeated(tokenizer, ids):
    """Positions in ids [l] of one document whose tokens spell a name that stood before it in the document."""
    text, start = "", []  # start: where the letters of each token begin
    for piece in map(tokenizer.id_to_piece, ids):
        letters = piece.lstrip("\u2581")
        start.append(len(text) + (len(piece) - len(letters) if letters else 0))
        text += "\n" if piece == "<0x0A>" else "?" if piece.startswith("<") else piece.replace("\u2581", " ")
    names, seen, found = names_in(text), set(), []
    for match in WORD.finditer(text):
        if match[0] in names:
            if match[0] in seen:
                found += range(bisect_left(start, match.start()), bisect_left(start, match.end()))
            seen.add(match[0])
    return found


@torch.no_grad()
def loss_on_repeated(model, tokenizer, documents, bos, longest=512):
    """Mean loss in nats of the tokens of names that return, and how many there were. documents: lists of ids."""
    total, count = 0.0, 0
    for document in documents:
        ids = [bos, *document][:longest]
        wanted = [position + 1 for position in repeated(tokenizer, document) if position + 1 < len(ids)]
        if wanted:
            logits = model(torch.tensor([ids[:-1]]))[0]
            loss = F.cross_entropy(logits.float(), torch.tensor(ids[1:]), reduction="none")
            total += loss[[position - 1 for position in wanted]].sum().item()
            count += len(wanted)
    return total / max(count, 1), count


def cut(text, length):
    """The first characters of a text, no word cut in two."""
    return text if len(text) <= length else text[:length].rpartition(" ")[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("told", help="what tell.js printed")
    parser.add_argument("--data", required=True, help="folder with val.bin and tokenizer.model: the real stories")
    args = parser.parse_args()
    told = {}
    with open(args.told, encoding="utf-8") as file:
        for row in map(json.loads, file):
            told.setdefault(row["temperature"], []).append(row["prompt"] + row["text"])
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=os.path.join(args.data, "tokenizer.model"))
    ids = np.fromfile(os.path.join(args.data, "val.bin"), dtype=np.uint16).tolist()
    length = int(np.median([len(text) for texts in told.values() for text in texts]))
    real = per_story([cut(tokenizer.decode(document), length) for document in documents(ids)])
    print(f"real stories, first {length} characters: {real:.2f} names")
    for temperature, texts in told.items():
        mean = per_story([cut(text, length) for text in texts])
        print(f"temperature {temperature}, {len(texts)} stories: {mean:.2f} names, {mean / real:.2f} x real")


if __name__ == "__main__":
    main()
