"""Measure what every shipped demo profile does at several strengths, and write it down (`make efficacy`).

python -m tools.efficacy            # answers, figures, the model card, docs/efficacy.md and its plot
python -m tools.efficacy --show     # the pages again, from the figures that are there
"""

import argparse
import json
import statistics
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch

from millm.demo import bundle
from millm.settings import Settings
from tools.efficacy.figures import Figures, profile_figures
from tools.efficacy.measures import MEASURES, PROMPTS
from tools.efficacy.measuring import Answer, measure, profiles, read
from tools.efficacy.pages import MEASUREMENTS, pages
from tools.efficacy.writer import NEW_TOKENS, TEMPERATURE, TOP_P, Writer

ANSWERS = Path(".cache/efficacy.jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Settings.load().home_folder, help="folder of the demo model")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="ask the first N questions (a quick look)")
    parser.add_argument("--seeds", type=int, default=2, help="answers to each")
    parser.add_argument(
        "--answers", type=Path, default=ANSWERS, help="file of finished answers, which are not measured again (*.jsonl)"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--show", action="store_true", help="only write the pages again")
    options = parser.parse_args()
    if not options.show:
        _measure(options)
    for path, text in pages(json.loads(MEASUREMENTS.read_text("utf-8"))).items():
        path.write_text(text, encoding="utf-8")


def _measure(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    seeds = range(1, options.seeds + 1)
    options.answers.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        writer = Writer(options.home, Path(scratch))
        measure(writer, options.answers, options.prompts, seeds)
    answers = [one for one in read(options.answers) if one.prompt < options.prompts and one.seed in seeds]
    result = _result(writer, answers, options.prompts, list(seeds))
    MEASUREMENTS.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _result(writer: Writer, answers: list[Answer], prompts: int, seeds: list[int]) -> Figures:
    questions = PROMPTS[:prompts]
    plain = statistics.fmean(len(writer.prompt(question, "")) for question in questions)
    system_tokens = {
        name: round(statistics.fmean(len(writer.prompt(question, one.system_prompt)) for question in questions) - plain)
        for name, one in MEASURES.items()
    }
    return {
        "model": bundle.MODEL_NAME,
        "sampling": {"temperature": TEMPERATURE, "top_p": TOP_P, "new_tokens": NEW_TOKENS, "seeds": seeds},
        "prompts": list(questions),
        "versions": {package: version(package) for package in ("torch", "transformers", "millm")},
        "profiles": {
            name: profile_figures(profile, answers, system_tokens[name], plain) for name, profile in profiles().items()
        },
    }


if __name__ == "__main__":
    main()
