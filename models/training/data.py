"""From a folder of documents to token ids and a tokenizer.

Owns: finding stories in files of `prompt<start>text<end>` records, cleaning, the train/validation split,
the SentencePiece tokenizer, and the two id files.
Does not know: the model, or how a batch is drawn.
The idea: a document's fate depends on its own text alone. One hash of its letters finds duplicates, puts
documents in order and decides who validates, so adding a file never moves another document across the split.

Writes into --out: tokenizer.model, train.bin, val.bin (uint16, `bos document eos` after one another), val.txt (the validation
documents, an empty line between two, for the perplexity protocol), data.json.
"""
import argparse
import hashlib
import json
import os
import re
import shutil

import numpy as np
import sentencepiece

BOS, EOS = 1, 2
KINDS = ("bedtime", "child", "campfire", "stories", "scenes", "food-stories", "slice-of-life")
RECORD = re.compile(r"<start>(.*?)<end>", re.S)
FILE_NAME = re.compile(r"^(?:generated|llama)-(.+?)(?:-\d+)?\.md$")
# Only the spelling of the same sign is unified; words and line breaks stay as they are.
SAME_SIGN = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u00a0": " ", "\u2026": "..."})
STAGE_DIRECTION = re.compile(r"^\s*\([^()]*\)\s*$\n?", re.M)  # a line that is nothing but one parenthesis: left out
# Marks of layout rather than prose: headings, emphasis, lists, tables, links, code.
LAYOUT = re.compile(r"[*#|_`~<>{}\[\]]|^\s*(?:[-+\u2022]|\d+[.)])\s|https?:|^\s*\(|^chapter\b|^\w+:\s*$", re.M | re.I)
NOT_A_STORY = re.compile(
    r"\b(?:as an ai|language model|i can(?:'t|not) (?:write|create|help)|audiobook|here(?:'s| is) (?:a|the) (?:story|scene))\b", re.I)
LETTERS = re.compile(r"[^a-z]+")


def kind_of(name):
    match = FILE_NAME.match(name)
    return match.group(1) if match else None


def read_records(folder, kinds):
    """Texts of every record in the files of the wanted kinds, or in all files where no name says a kind."""
    names = sorted(name for name in os.listdir(folder) if name.endswith(".md"))
    if any(kind_of(name) for name in names):
        names = [name for name in names if kind_of(name) in kinds]
    for name in names:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            for text in RECORD.findall(file.read()):
                yield text


def clean(text):
    """The text with signs unified and stage directions left out, or None when it is not plain prose of a useful length."""
    text = STAGE_DIRECTION.sub("", text.translate(SAME_SIGN))
    text = "\n".join(line.rstrip() for line in text.strip().split("\n"))
    if not 300 <= len(text) <= 12000 or LAYOUT.search(text) or NOT_A_STORY.search(text):
        return None
    if not text[0].isascii() or text[-1] not in ".!?\"'":
        return None  # cut off in the middle, or opens with an ornament
    if sum(ord(c) > 127 for c in text) > 0.005 * len(text):
        return None
    return re.sub(r"\n{3,}", "\n\n", text)


def digest(text):
    """A hash of the letters: copies that differ only in case, spacing, digits and signs share it."""
    return hashlib.sha256(LETTERS.sub(" ", text.lower()).encode()).hexdigest()


def collect(folder, kinds):
    """{digest: text} in the order of the digests (a shuffle that needs no seed), and what was dropped."""
    found, dropped, double = {}, 0, 0
    for raw in read_records(folder, kinds):
        text = clean(raw)
        if text is None:
            dropped += 1
            continue
        key = digest(text)
        double += key in found
        found.setdefault(key, text)
    return dict(sorted(found.items())), dropped, double


def split(documents, permille):
    """Validation takes the documents whose digest, read as a number, falls in the first permille of 1000."""
    val = {k: t for k, t in documents.items() if int(k[-8:], 16) % 1000 < permille}
    train = {k: t for k, t in documents.items() if k not in val}
    return train, val


def train_tokenizer(texts, path, pieces, sample_bytes):
    """LLaMA's kind of tokenizer: BPE with byte fallback, text unchanged, one space put in front, digits apart."""
    size = 0
    with open(path + ".txt", "w", encoding="utf-8") as file:
        for text in texts:
            # A line break is not a piece (it becomes the byte 0x0A), so the trainer may see lines.
            size += file.write(text + "\n")
            if size > sample_bytes:
                break
    sentencepiece.SentencePieceTrainer.train(
        input=path + ".txt", model_prefix=path, model_type="bpe", vocab_size=pieces, byte_fallback=True,
        split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        add_dummy_prefix=True, character_coverage=0.99995, unk_id=0, bos_id=BOS, eos_id=EOS, pad_id=-1,
        num_threads=1, minloglevel=2)
    os.remove(path + ".txt")
    os.remove(path + ".vocab")
    return sentencepiece.SentencePieceProcessor(model_file=path + ".model")


def write_ids(tokenizer, texts, path):
    ids = []
    for text in texts:
        ids += [BOS, *tokenizer.encode(text), EOS]
    np.array(ids, dtype=np.uint16).tofile(path)
    return len(ids)


def documents(ids):
    """The documents of an id file (as a list), without bos and eos."""
    start = 0
    for end, token in enumerate(ids):
        if token == EOS:
            yield ids[start + 1:end]
            start = end + 1


def check(tokenizer, folder, expected=None):
    """Decodes both id files again and fails if a document is in both or, given {part: digests}, did not come back whole."""
    seen = {}
    for part in ("train", "val"):
        ids = np.fromfile(os.path.join(folder, part + ".bin"), dtype=np.uint16).tolist()
        seen[part] = {digest(tokenizer.decode(document)) for document in documents(ids)}
        if expected and seen[part] != set(expected[part]):
            raise SystemExit(f"{part}.bin: {len(seen[part] ^ set(expected[part]))} documents did not come back as they were")
    both = seen["train"] & seen["val"]
    if both:
        raise SystemExit(f"{len(both)} documents are in train.bin and in val.bin")
    return {part: len(digests) for part, digests in seen.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", help="folder of *.md files of prompt<start>text<end> records")
    parser.add_argument("--out", required=True, help="work folder, outside the repository")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--tokenizer", help="folder with a tokenizer.model to take instead of training one")
    parser.add_argument("--pieces", type=int, default=4096)
    parser.add_argument("--val-permille", type=int, default=20)
    parser.add_argument("--sample-bytes", type=int, default=12_000_000, help="text the tokenizer is trained on")
    args = parser.parse_args()
    if not os.path.isdir(args.folder):
        raise SystemExit(f"{args.folder}: not a folder, want one of *.md files")
    os.makedirs(args.out, exist_ok=True)
    found, dropped, double = collect(args.folder, set(args.kinds))
    train, val = split(found, args.val_permille)
    if not train or not val:
        raise SystemExit(f"{args.folder}: {len(train)} documents to train on and {len(val)} to validate on, {dropped} were dropped")
    if args.tokenizer:
        path = shutil.copy(os.path.join(args.tokenizer, "tokenizer.model"), args.out)
        tokenizer = sentencepiece.SentencePieceProcessor(model_file=path)
        if (tokenizer.bos_id(), tokenizer.eos_id()) != (BOS, EOS) or len(tokenizer) > 1 << 16:
            raise SystemExit(f"{path}: bos {tokenizer.bos_id()}, eos {tokenizer.eos_id()}, {len(tokenizer)} pieces; "
                             f"want {BOS}, {EOS} and at most 65536")
    else:
        tokenizer = train_tokenizer(train.values(), os.path.join(args.out, "tokenizer"), args.pieces, args.sample_bytes)
    report = {"kinds": args.kinds, "dropped": dropped, "duplicates": double}
    for part, texts in (("train", train.values()), ("val", val.values())):
        tokens = write_ids(tokenizer, texts, os.path.join(args.out, part + ".bin"))
        report[part] = {"documents": len(texts), "bytes": sum(len(t.encode()) for t in texts), "tokens": tokens}
    with open(os.path.join(args.out, "val.txt"), "w", encoding="utf-8", newline="") as file:
        file.write("\n\n".join(val.values()))
    report["distinct"] = check(tokenizer, args.out, {"train": train, "val": val})
    with open(os.path.join(args.out, "data.json"), "w") as file:
        json.dump(report, file, indent=2)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
