"""The purpose of each demo profile, its metric, the equivalent system prompt, and the questions."""

import re
from collections.abc import Callable
from dataclasses import dataclass

PROMPTS = (
    "Tell me about the sea.",
    "What makes a good friend?",
    "Describe a city at night.",
    "How do I learn to play the piano?",
    "Why is the sky blue?",
    "Write a short story about a dog.",
    "What should I do on a rainy day?",
    "Explain what a computer does.",
    "Tell me about your day.",
    "What is a good way to start the morning?",
    "Describe a walk in the forest.",
    "How does a bicycle work?",
    "Give me advice for a long journey.",
    "What is the moon?",
    "Tell me something about trees.",
    "How can I make new friends?",
    "Describe an old house.",
    "What do birds do in winter?",
    "Why do people like music?",
    "Write a few lines about time.",
)

Metric = Callable[[str], float]


def share_of_words(words: str) -> Metric:
    """Share of a text's words that are in the list or are a form of one with -s, -ed or -ing."""
    stems = set(words.split())
    forms = stems | {stem + ending for stem in stems for ending in ("s", "es", "ed", "ing")}

    def share(text: str) -> float:
        found = re.findall(r"[^\W\d_]+", text.lower())
        return sum(word in forms for word in found) / max(len(found), 1)

    return share


def share_of_capitals(text: str) -> float:
    """Share of a text's letters that are upper case."""
    letters = [character for character in text if character.isalpha()]
    return sum(character.isupper() for character in letters) / max(len(letters), 1)


def share_of_exclamations(text: str) -> float:
    """Share of a text's sentence ends that are exclamation marks."""
    ends = re.findall(r"[.!?]", text)
    return ends.count("!") / max(len(ends), 1)


@dataclass(frozen=True)
class Measure:
    """The purpose of a profile, its metric, and the equivalent system prompt."""

    shows_as: str
    metric: Metric
    system_prompt: str


MEASURES = {
    "yelling": Measure("upper-case letters", share_of_capitals, "Answer in capital letters only."),
    "excited": Measure(
        "sentences that end in `!`", share_of_exclamations, "Answer with great excitement and exclamation marks."
    ),
    "food": Measure(
        "words about food",
        share_of_words(
            "food cook cooking eat eating dish meal recipe taste flavor flavour ingredient sugar salt pepper butter oil"
            " bread cheese meat chicken fish fruit vegetable sauce soup salad rice pasta egg milk cream chocolate cake"
            " bake roast fry grill spice herb garlic onion tomato sweet delicious kitchen chef restaurant breakfast"
            " lunch dinner snack drink juice coffee tea wine bowl plate diet nutrient potato lemon apple honey flour"
            " dough"
        ),
        "Relate every answer to food and cooking.",
    ),
    "law": Measure(
        "words about law",
        share_of_words(
            "law legal court judge justice right rule statute act lawyer attorney jury trial case crime criminal"
            " evidence contract treaty constitution constitutional property defendant plaintiff claim appeal verdict"
            " sentence prison police authority government state federal supreme legislation regulation liable liability"
            " party agreement obligation duty clause section article jurisdiction sovereign sovereignty lawful illegal"
        ),
        "Relate every answer to law and the courts.",
    ),
    "money": Measure(
        "words about money",
        share_of_words(
            "money price cost pay payment buy sell sale market trade dollar cent euro pound fund bank loan debt credit"
            " invest investment investor finance financial budget tax profit income wealth rich earn expense spend"
            " economy economic business cash currency value worth purchase fee salary wage stock share capital asset"
            " insurance rent bill savings save rate interest donate donation"
        ),
        "Relate every answer to money and trade.",
    ),
    "deity": Measure(
        "words about the divine",
        share_of_words(
            "god goddess divine holy sacred spirit spiritual soul heaven heavenly lord faith prayer pray worship bless"
            " blessed blessing eternal angel temple church religion religious deity creator creation almighty miracle"
            " grace prophet scripture priest saint salvation sin immortal mystical mysterious celestial supernatural"
        ),
        "Relate every answer to gods and the divine.",
    ),
    "archaic": Measure(
        "solemn, old-fashioned words",
        share_of_words(
            "thee thou thy thine hath doth unto upon shall lo behold whence thence hence wherein thereof whereof"
            " wherefore nay aye ye art boundless abide abiding eternal everlasting solemn noble nobler virtue virtuous"
            " mighty infinite unbounded multitude dwell dwelling soul bosom forth amidst midst amid whilst ere oft nigh"
            " verily cometh goeth saith sublime sacred reverence glory glorious majesty majestic splendor splendour"
            " radiant humble just justly righteous endure endless yet whose whom thus indeed truth most very"
        ),
        "Answer in solemn, old-fashioned English, as in an old book.",
    ),
    "french": Measure(
        "French function words",
        share_of_words(
            "le la les un une des du de et est sont dans que qui pour sur avec par pas ne se ce cette il elle nous vous"
            " au aux je tu mais ou où plus comme être été avoir son sa ses leur très tout d l s c n qu"
        ),
        "Répondez toujours en français.",
    ),
}
