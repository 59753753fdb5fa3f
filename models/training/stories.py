"""Writes children's stories from the grammar in stories.txt: text of our own, as much as wanted.

Owns: the grammar's notation and the cast of a story. Does not know: tokens, models, the split into train and validation.
The idea: a story draws each of its facts once. Every <color> and every repeated choice of one story is the same, so its
names and events agree with each other however the sentences are combined.

The grammar: `list NAME: a|b` (or words with spaces between); then `opening`, `plot NAME` and `closing`, each with its text, and
`talk` with lines. A story is one opening, plot and closing, joined by empty lines. A talk is some of the lines in any order: hardly a
story, but a name every third word, from which a small model learns sooner that names come back.
  {a|b|}      one of the alternatives. A later group with the same number of alternatives, each a part of its
              counterpart in the earlier one ({a lamp|a candle} ... {lamp|candle}), takes the same turn.
  <color>     an entry of a list, the same one throughout the story; <color2> is another one.
  <h> <f> <p> names of the hero, the friend, the pet. <h.is>: "a fox named Nib"; <h.is2>: "Nib the fox"; <h.what>:
              "a clever fox"; <h.his>: "Nib's". <he> <him> <his> <himself> are the hero's, <fhe> <fhim> <fhis> the friend's.
  <Color>     with a capital: the same, capitalised.
`(strangers)` after a plot's name: hero and friend meet there, so no opening with the friend goes before it.
"a" becomes "an" before a vowel by itself.

Records `prompt<start>text<end>` as data.py reads them, one file.
"""
import argparse
import os
import random
import re

GRAMMAR = os.path.join(os.path.dirname(os.path.abspath(__file__)), "stories.txt")
GROUP = re.compile(r"\{([^{}]*)\}")
SLOT = re.compile(r"<([A-Za-z]+)(?:\.([a-z]+))?(2?)>")
FRIEND = re.compile(r"<[Ff](?:[.>]|h)")
ARTICLE = re.compile(r"\b([Aa]) (?=[aeiou](?!ne\b|ni|se))")
HEAD = re.compile(r"(list|opening|plot|closing|talk)\b *([^:\n]*)(?:: *(.*))?$")
PRONOUNS = {"girl": ("she", "her", "her", "herself"), "boy": ("he", "him", "his", "himself")}
ELDERS = ("mother", "father", "grandmother", "grandfather", "aunt", "uncle")
EVERYONE = ("everyone", "everybody", "the whole village")
INVENTED = 0.25  # so many names are in no list, so that a model learns to keep a name rather than to know it
ONSETS = "b bl br c ch d dr f fl g gr h j k kl l m n p pr qu r s sh sk st t th tr v w y z".split()
VOWELS = "a a a e e e i i o o o u u ai ee oo ia".split()
CODAS = "n l r s m k t x".split() + [""] * 12
AGES = ("five", "six", "seven", "eight", "nine", "ten")


class Grammar:
    """lists {name: [entry]}, openings [text], plots {name: text}, closings [text], lines of talk [text], and all words of these."""

    def __init__(self, path=GRAMMAR):
        self.lists = {"elder": list(ELDERS), "everyone": list(EVERYONE), "my": ["my"]}
        parts = {"opening": [], "plot": [], "closing": [], "talk": []}
        with open(path, encoding="utf-8") as file:
            for line in file.read().split("\n"):
                match = HEAD.match(line)
                if match and match[1] == "list":
                    self.lists[match[2]] = match[3].split("|") if "|" in match[3] else match[3].split()
                elif match and match[3] is None:
                    text = []
                    parts[match[1]].append((match[2], text))
                elif not line.startswith("#") and any(parts.values()):
                    text.append(line)
        self.openings = [joined(text) for _, text in parts["opening"]]
        self.plots = {name: joined(text) for name, text in parts["plot"]}
        self.closings = [joined(text) for _, text in parts["closing"]]
        self.words = set(re.findall(r"[a-z]+", " ".join([*self.openings, *self.plots.values(), *self.closings]).lower()))
        self.talk = joined(parts["talk"][0][1]).split("\n")


def joined(lines):
    return "\n".join(lines).strip()


def invented_name(rng):
    """A name of two or three syllables: shorter ones are words too often, and some of those are not for children."""
    syllables = (rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS) for _ in range(rng.choice((2, 2, 2, 3))))
    return "".join(syllables).capitalize()


class Character:
    """A child, or an animal with a child's pronouns. `beast` is None for a child."""

    def __init__(self, rng, grammar, beast, taken):
        lists = grammar.lists
        self.sex = rng.choice(("girl", "boy"))
        self.beast = rng.choice(lists["beast"]) if beast else None
        self.name = rng.choice([name for name in lists["pet" if beast else self.sex] if name not in taken])
        if rng.random() < INVENTED:
            self.name = invented_name(rng)
            while self.name in taken or self.name.lower() in grammar.words:
                self.name = invented_name(rng)
        self.trait, self.age = rng.choice(lists["trait"]), rng.choice(AGES)
        self.he, self.him, self.his, self.himself = PRONOUNS[self.sex]

    def say(self, form):
        kind = self.beast or self.sex
        if form == "is2":
            return f"{self.name} the {self.beast}" if self.beast else f"{self.name}, a {self.sex} of {self.age},"
        return {"": self.name, "is": f"a {kind} named {self.name}", "what": f"a {self.trait} {kind}",
                "his": self.name + "'s"}[form]


class Story:
    """One telling: the cast, and every fact drawn so far."""

    def __init__(self, grammar, rng):
        self.lists, self.rng, self.facts, self.turns = grammar.lists, rng, {}, []
        animals = rng.choice(((True, True), (False, False), (False, False), (False, True), (True, False)))
        self.cast, taken = {}, set()
        for role, beast in zip("hfp", (*animals, True)):
            self.cast[role] = Character(rng, grammar, beast, taken)
            taken.add(self.cast[role].name)

    def fact(self, name, second):
        """The story's entry of a list; the second differs from the first."""
        if name not in self.facts:
            self.facts[name] = self.rng.sample(self.lists[name], min(2, len(self.lists[name])))
        return self.facts[name][-1 if second else 0]

    def slot(self, match):
        word, form, second = match.groups()
        key = word[0].lower() + word[1:]
        if key in self.cast:
            text = self.cast[key].say((form or "") + second)
        elif hasattr(self.cast["h"], key) and key.startswith("h"):
            text = getattr(self.cast["h"], key)
        elif key.startswith("fh"):
            text = getattr(self.cast["f"], key[1:])
        else:
            text = self.fact(key, second)
        return text if word[0].islower() else text[0].upper() + text[1:]

    def choose(self, match):
        options = match[1].split("|")
        bare = [re.sub(r"^(?:an?|the) |s$", "", option) for option in options]
        for before, turn in self.turns:
            if len(before) == len(bare) > 1 and all(b and b in a for a, b in zip(before, bare)):
                return options[turn]
        turn = self.rng.randrange(len(options))
        self.turns.append((bare, turn))
        return options[turn]

    def tell(self, text):
        while GROUP.search(text):  # the innermost first
            text = GROUP.sub(self.choose, text)
        text = SLOT.sub(self.slot, text)
        text = re.sub(r" +", " ", text).replace(" \n", "\n").replace(",.", ".").replace(",,", ",").strip()
        return ARTICLE.sub(r"\1n ", text)


def story(grammar, rng):
    """(plot's name, text) of one story."""
    name = rng.choice(list(grammar.plots))
    openings = [o for o in grammar.openings if not (name.endswith("(strangers)") and FRIEND.search(o))]
    parts = (rng.choice(openings), grammar.plots[name], rng.choice(grammar.closings))
    return name, Story(grammar, rng).tell("\n\n".join(parts))


def talk(grammar, rng):
    lines = rng.sample(grammar.talk, rng.randint(9, 16))
    return "talk", Story(grammar, rng).tell(" ".join(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", help="file to write, for data.py in a folder of its own")
    parser.add_argument("--count", type=int, default=60000)
    parser.add_argument("--talks", type=int, default=0, help="so many talks besides")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    grammar, rng = Grammar(), random.Random(args.seed)
    os.makedirs(os.path.dirname(os.path.abspath(args.out)), exist_ok=True)
    with open(args.out, "w", encoding="utf-8") as file:
        for make in [story] * args.count + [talk] * args.talks:
            name, text = make(grammar, rng)
            file.write(f"{name}<start>{text}<end>\n")


if __name__ == "__main__":
    main()
