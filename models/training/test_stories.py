"""Tests of the grammar and of the measure of names: `python3 -m unittest test_stories` in this folder.

Owns: that every plot gives clean text, and that names are counted right. Does not know: models.
"""
import os
import random
import re
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import data
import names
import stories

GRAMMAR = stories.Grammar()


class Tokens:
    """Just enough of a SentencePiece processor: ids are places in a list of pieces."""

    def __init__(self, pieces):
        self.pieces = pieces

    def id_to_piece(self, token):
        return self.pieces[token]


class Grammar(unittest.TestCase):
    def test_every_plot_is_told_without_marks(self):
        self.assertGreaterEqual(len(GRAMMAR.plots), 60)
        for name, plot in GRAMMAR.plots.items():
            for seed in range(20):
                told = stories.Story(GRAMMAR, random.Random(seed))
                text = told.tell("\n\n".join((GRAMMAR.openings[seed % len(GRAMMAR.openings)], plot, GRAMMAR.closings[seed % len(GRAMMAR.closings)])))
                self.assertNotRegex(text, r"[{}|<>]|  | [.,!?]|,\.|\b[Aa] [aeiou](?!ne|ni|se)|\ban [^aeiouh]", f"{name}, seed {seed}")
                self.assertIsNotNone(data.clean(text), f"{name}, seed {seed}: data.py would drop it")

    def test_same_seed_same_story_and_stories_differ(self):
        told = [stories.story(GRAMMAR, random.Random(seed)) for seed in range(300)]
        self.assertEqual(told, [stories.story(GRAMMAR, random.Random(seed)) for seed in range(300)])
        self.assertEqual(len({text for _, text in told}), 300)

    def test_facts_and_choices_hold_through_a_story(self):
        template = "<h> saw {a lamp|a candle}. The {lamp|candle} was <color>, as <color> as {a lamp|a candle}. <Color2>, <he> said. {x|y|z}"
        for seed in range(50):
            text = stories.Story(GRAMMAR, random.Random(seed)).tell(template)
            things, colors = re.findall(r"lamp|candle", text), re.search(r"was ([a-z]+), as ([a-z]+) as", text)
            self.assertEqual(len(set(things)), 1, text)
            self.assertEqual(colors[1], colors[2])
            self.assertNotIn(colors[1].capitalize(), text)

    def test_strangers_meet_only_once(self):
        rng = random.Random(1)
        for _ in range(3000):
            name, text = stories.story(GRAMMAR, rng)
            if name.startswith("the new one"):
                self.assertNotRegex(text.split("\n\n")[0], r"friend\b|friends\b|\bcame too\b")

    def test_a_talk_is_between_two(self):
        rng = random.Random(3)
        for _ in range(300):
            _, text = stories.talk(GRAMMAR, rng)
            self.assertNotRegex(text, r"[{}|<>\n]|  ")
            self.assertIsNotNone(data.clean(text))
            self.assertLessEqual(len(names.names_in(text)), 3)

    def test_invented_names_are_no_words(self):
        rng = random.Random(4)
        invented = {stories.invented_name(rng).lower() for _ in range(5000)}
        self.assertTrue(all(len(name) >= 4 for name in invented))
        for seed in range(2000):
            for character in stories.Story(GRAMMAR, random.Random(seed)).cast.values():
                self.assertNotIn(character.name.lower(), {"she", "they", "then", "once", "said", "were"})

    def test_articles(self):
        story = stories.Story(GRAMMAR, random.Random(1))
        self.assertEqual(story.tell("A owl, a orange hat, a used one, a one, a unit, A fox."),
                         "An owl, an orange hat, a used one, a one, a unit, A fox.")


class Names(unittest.TestCase):
    """Who speaks first in a sentence counts when the name also stands inside one."""

    def test_names_in(self):
        text = 'Once there was Ann. "Come, Ben," she said to Ben. They met on Monday. "Yes," said Mr Old and Ben.'
        self.assertEqual(names.names_in(text), {"Ann", "Ben", "Old"})
        self.assertEqual(names.per_story(["I saw Ann and Ben.", "It was Ann, not Ann."]), 1.5)

    def test_the_grammar_has_two(self):
        rng = random.Random(2)
        self.assertAlmostEqual(names.per_story([stories.story(GRAMMAR, rng)[1] for _ in range(400)]), 2, delta=0.1)

    def test_repeated(self):
        pieces = ["\u2581so", "\u2581said", "\u2581An", "n", ".", "<0x0A>", "An", "n", "\u2581saw", "\u2581Bo", "\u2581and", "\u2581An", "n"]
        self.assertEqual(names.repeated(Tokens(pieces), range(len(pieces))), [6, 7, 11, 12])


if __name__ == "__main__":
    unittest.main()
