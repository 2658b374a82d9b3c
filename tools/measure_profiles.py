"""Measure what every shipped demo profile does, and write it down in the demo's model card.

For each profile, 20 prompts × 3 seeds, three ways: the base model, the profile, and the base model asked for the same
thing in a system prompt. Reported per way: the effect (a share of words or letters, see MEASURES), the repetition and
the perplexity under the base model; and the tokens that the system prompt costs, which the profile does not.

    python tools/measure_profiles.py        # writes src/millm/demo/measurements.json and MODEL_CARD.md

It runs the engine's own tap and sampler; rows of one prompt share a batch, each with its own steering.
"""

import argparse
import json
import random
import re
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from millm.demo import bundle
from millm.demo.weights import prepare
from millm.engine import model as models
from millm.engine import sampler
from millm.engine.messages import Generate, LoadModel, Sampling
from millm.engine.sequence import Sequence as EngineSequence
from millm.profiles.contract import Profile
from millm.profiles.files import read_profile
from millm.sae import hooks
from millm.sae.autoencoder import SparseAutoencoder
from millm.sae.formats import canonicalise
from millm.sae.steering import coefficients
from millm.sae.tap import Tap
from millm.sae.tap_step import Span, TapRow
from millm.settings import Settings
from millm.text.prompt import ChatTemplate, Message
from millm.text.tokenizer import Tokenizer

DEMO = bundle.PROFILES_FOLDER.parent
MEASUREMENTS = DEMO / "measurements.json"
MODEL_CARD = DEMO / "MODEL_CARD.md"
CARD_HEAD = DEMO / "model_card_head.md"

SEEDS = (1, 2, 3)
NEW_TOKENS = 40
TEMPERATURE = 0.7
TOP_P = 0.95

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
    """What a profile is for, how it shows, and how one would ask for it instead."""

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


@dataclass(frozen=True)
class Written:
    """One answer and the ids it came from."""

    prompt: tuple[int, ...]
    generated: tuple[int, ...]
    text: str


class Writer:
    """The demo model with its SAE tapped, answering batches that share a prompt."""

    def __init__(self, home: Path, scratch: Path) -> None:
        folder = prepare(home, source=Settings.load().demo_wheel, on_progress=lambda *_: None)
        self.tokenizer = Tokenizer.from_folder(folder)
        self.template = ChatTemplate.from_folder(folder, self.tokenizer)
        self.model: PreTrainedModel = models.load(LoadModel(id="measure", path=str(folder)), lambda *_: None)
        self.stop_ids = set(models.stop_ids(self.model))
        sae = SparseAutoencoder.open(canonicalise(bundle.SAE_FOLDER, scratch))
        assert sae.config.hook_name
        self.tap = Tap(sae, self.model.device)
        hooks.resolve(self.model, sae.config.hook_name).register(self.tap)

    def prompt(self, question: str, system: str | None = None) -> tuple[int, ...]:
        messages = [*([Message("system", system)] if system is not None else []), Message("user", question)]
        return tuple(self.template.prompt(messages).ids)

    @torch.inference_mode()
    def write(self, prompt: tuple[int, ...], rows: Sequence[int]) -> list[Written]:
        """One answer per (row of the tap's table, seed), row-major; row 0 is the base model."""
        sequences = [self._sequence(prompt, seed) for _ in rows for seed in SEEDS]
        table_rows = [row for row in rows for _ in SEEDS]
        ids = torch.tensor([prompt] * len(sequences))  # [B, T]
        cache = None
        for _ in range(NEW_TOKENS):
            start = 0 if cache is None else cache.get_seq_length()
            keep = [[position > 0 for position in range(start, start + ids.shape[1])]] * len(sequences)
            self.tap.prepare(table_rows, keep, [Span(start, ids.shape[1], len(prompt))] * len(sequences))
            output = self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = output.past_key_values
            ids = torch.tensor([[self._choose(s, row)] for s, row in zip(sequences, output.logits[:, -1], strict=True)])
        return [self._written(sequence) for sequence in sequences]

    @torch.inference_mode()
    def log_likelihood(self, answers: Sequence[Written]) -> list[float]:
        """Mean log-probability per token of each answer under the base model; one shared prompt."""
        self.tap.prepare((), (), ())
        prompt = len(answers[0].prompt)
        longest = max(len(answer.generated) for answer in answers)
        padded = [(*a.prompt, *a.generated, *([0] * (longest - len(a.generated)))) for a in answers]
        logits: Tensor = self.model(input_ids=torch.tensor(padded), logits_to_keep=longest + 1).logits[:, :-1]
        chosen = torch.log_softmax(logits.float(), -1).gather(-1, torch.tensor(padded)[:, prompt:, None])[..., 0]
        return [float(row[: len(a.generated)].mean()) for row, a in zip(chosen, answers, strict=True) if a.generated]

    def _sequence(self, prompt: tuple[int, ...], seed: int) -> EngineSequence:
        sampling = Sampling(temperature=TEMPERATURE, top_p=TOP_P, seed=seed)
        sequence = EngineSequence(Generate(id="", prompt=prompt, max_tokens=NEW_TOKENS, sampling=sampling))
        sequence.sampler = sampler.start(sampling, self.model.device)
        return sequence

    def _choose(self, sequence: EngineSequence, logits: Tensor) -> int:
        """The next id; a sequence that has ended goes on in vain, its tokens are not kept."""
        (best,) = sampler.likeliest(logits[None])
        token = sampler.choose(sequence, logits, best).token
        sequence.cancelled |= token in self.stop_ids
        if not sequence.cancelled:
            sequence.generated.append(token)
        return token

    def _written(self, sequence: EngineSequence) -> Written:
        return Written(sequence.request.prompt, tuple(sequence.generated), self.tokenizer.decode(sequence.generated))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Settings.load().home_folder, help="where the demo model is kept")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="use the first N prompts (a quick look)")
    parser.add_argument("--card-only", action="store_true", help="write the card again from measurements.json")
    options = parser.parse_args()
    if not options.card_only:
        with tempfile.TemporaryDirectory() as scratch:
            result = measure(Writer(options.home, Path(scratch)), PROMPTS[: options.prompts])
        MEASUREMENTS.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    MODEL_CARD.write_text(card(json.loads(MEASUREMENTS.read_text(encoding="utf-8"))), encoding="utf-8")


def measure(writer: Writer, prompts: Sequence[str]) -> dict[str, object]:
    profiles = {path.stem: read_profile(path) for path in bundle.profile_files()}
    rows = [0, *(writer.tap.acquire(tap_row(profile)) for profile in profiles.values())]
    ways: dict[str, dict[str, list[tuple[str, float]]]] = {
        name: {"base": [], "steered": [], "asked": []} for name in profiles
    }
    for number, question in enumerate(prompts, 1):
        answers = scored(writer, writer.write(writer.prompt(question), rows))
        base, steered = answers[: len(SEEDS)], answers[len(SEEDS) :]
        for index, name in enumerate(profiles):
            ways[name]["base"] += base
            ways[name]["steered"] += steered[index * len(SEEDS) : (index + 1) * len(SEEDS)]
            asked = writer.write(writer.prompt(question, MEASURES[name].system_prompt), [0])
            ways[name]["asked"] += scored(writer, asked)
        print(f"{number}/{len(prompts)} {question}", flush=True)
    return {
        "model": bundle.MODEL_NAME,
        "sampling": {"temperature": TEMPERATURE, "top_p": TOP_P, "new_tokens": NEW_TOKENS, "seeds": list(SEEDS)},
        "prompts": list(prompts),
        "versions": {package: version(package) for package in ("torch", "transformers", "millm")},
        "profiles": {name: summary(writer, profiles[name], ways[name], prompts) for name in profiles},
    }


def tap_row(profile: Profile) -> TapRow:
    return TapRow(tuple(coefficients(feature.setting()) for feature in profile.features))


def scored(writer: Writer, answers: list[Written]) -> list[tuple[str, float]]:
    """(text, mean log-probability per token under the base model)."""
    written = [answer for answer in answers if answer.generated]
    return list(zip([answer.text for answer in written], writer.log_likelihood(written), strict=True))


def summary(
    writer: Writer, profile: Profile, ways: dict[str, list[tuple[str, float]]], prompts: Sequence[str]
) -> dict[str, object]:
    measure = MEASURES[profile.name]
    effects = {way: [measure.metric(text) for text, _ in answers] for way, answers in ways.items()}
    low, high = difference_interval(effects["steered"], effects["base"])
    with_system = [len(writer.prompt(question, measure.system_prompt)) for question in prompts]
    without = [len(writer.prompt(question, "")) for question in prompts]
    return {
        "features": [feature.model_dump(exclude_none=True) for feature in profile.features],
        "shows_as": measure.shows_as,
        "system_prompt": measure.system_prompt,
        **{way: way_summary(effects[way], answers) for way, answers in ways.items()},
        "steered_minus_base_95": [round(low, 4), round(high, 4)],
        "system_prompt_tokens": round(statistics.mean(with_system) - statistics.mean(without)),
        "system_prompt_share": round(1 - statistics.mean(without) / statistics.mean(with_system), 3),
        "steering_tokens": 0,
        "examples": [text for text, _ in ways["steered"][:: 4 * len(SEEDS)]][:3],
    }


def way_summary(effects: list[float], answers: list[tuple[str, float]]) -> dict[str, float]:
    return {
        "effect": round(statistics.mean(effects), 4),
        "repetition": round(statistics.mean(repetition(text) for text, _ in answers), 4),
        "perplexity": round(float(torch.tensor([-score for _, score in answers]).mean().exp()), 1),
        "answers": len(answers),
    }


def repetition(text: str) -> float:
    """Share of the 3-word sequences that stood in the text before."""
    words = text.lower().split()
    triples = [tuple(words[start : start + 3]) for start in range(len(words) - 2)]
    return 1 - len(set(triples)) / len(triples) if triples else 0.0


def difference_interval(ones: Sequence[float], others: Sequence[float], draws: int = 4000) -> tuple[float, float]:
    """Bootstrap 95 % interval of the difference of the means."""
    rng = random.Random(0)
    differences = sorted(
        statistics.fmean(rng.choices(ones, k=len(ones))) - statistics.fmean(rng.choices(others, k=len(others)))
        for _ in range(draws)
    )
    return differences[int(0.025 * draws)], differences[int(0.975 * draws)]


def card(result: dict[str, Any]) -> str:
    """The model card: a written head and the measured tables."""
    profiles: dict[str, dict[str, Any]] = result["profiles"]
    lines = [
        CARD_HEAD.read_text(encoding="utf-8").rstrip(),
        "",
        f"{len(result['prompts'])} prompts × {len(SEEDS)} seeds, {NEW_TOKENS} tokens each, temperature {TEMPERATURE},"
        f" top-p {TOP_P}. *Effect* is the share named in the second column; *asked* is the base model with the"
        " system prompt below; perplexity is under the unsteered model; repetition is the share of repeated 3-word"
        " sequences.",
        "",
        "| profile | effect is the share of | base | steered | asked | steered − base, 95 % |"
        " perplexity base / steered / asked | repetition base / steered / asked |",
        "|---|---|---|---|---|---|---|---|",
        *(effect_row(name, found) for name, found in profiles.items()),
        "",
        "| profile | system prompt that asks for it | its tokens | share of the prompt | steering's tokens |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {found['system_prompt']} | {found['system_prompt_tokens']} |"
            f" {found['system_prompt_share']:.0%} | {found['steering_tokens']} |"
            for name, found in profiles.items()
        ),
        "",
        "Steered answers to the first prompts, as they came:",
        "",
        *(f"- **{name}**: {example(found)}" for name, found in profiles.items()),
        "",
    ]
    return "\n".join(lines)


def effect_row(name: str, found: dict[str, Any]) -> str:
    ways = [found["base"], found["steered"], found["asked"]]
    low, high = found["steered_minus_base_95"]
    effects = " | ".join(f"{way['effect']:.3f}" for way in ways)
    perplexities = " / ".join(f"{way['perplexity']:.1f}" for way in ways)
    repetitions = " / ".join(f"{way['repetition']:.2f}" for way in ways)
    return f"| {name} | {found['shows_as']} | {effects} | {low:.3f} to {high:.3f} | {perplexities} | {repetitions} |"


def example(found: dict[str, Any]) -> str:
    return " ".join(found["examples"][0].split()).replace("|", "\\|")


if __name__ == "__main__":
    main()
