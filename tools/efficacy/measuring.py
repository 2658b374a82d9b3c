"""Generate the answers: every profile at every multiple of its strengths, and by a system prompt instead.

Answers are saved line by line, so that a stopped measurement can be resumed.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from millm.demo import bundle
from millm.profiles.schema import Profile
from millm.profiles.store import read_profile
from millm.sae.hook_step import HookRow
from millm.sae.steering import coefficients
from tools.efficacy.measures import MEASURES, PROMPTS
from tools.efficacy.writer import Writer, Written

MULTIPLES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer and its question."""

    profile: str
    """Empty: the base model's, which is the same for every profile."""
    multiple: float
    """Of the profile's strengths; 0: not steered."""
    asked: bool
    """In a system prompt."""
    prompt: int
    """Which of PROMPTS."""
    seed: int
    text: str
    nll: float | None
    kl: float | None


_encode = msgspec.json.encode
_decode = msgspec.json.Decoder(Answer).decode


def profiles() -> dict[str, Profile]:
    return {path.stem: read_profile(path) for path in bundle.profile_files()}


def measure(writer: Writer, file: Path, prompts: int, seeds: Sequence[int]) -> None:
    """Write every answer that `file` has not got yet."""
    have = {(answer.prompt, answer.seed) for answer in read(file)}
    rows = [(name, multiple, _row(writer, profile, multiple)) for name, profile in profiles().items()
            for multiple in MULTIPLES]  # fmt: skip
    for seed in seeds:
        for prompt in range(prompts):
            if (prompt, seed) not in have:
                began = time.monotonic()
                answers = [*_steered(writer, rows, prompt, seed), *_asked(writer, prompt, seed)]
                with file.open("ab") as out:
                    out.write(b"".join(_encode(answer) + b"\n" for answer in answers))
                print(f"seed {seed}, {prompt + 1}/{prompts}: {time.monotonic() - began:.0f} s", flush=True)


def read(file: Path) -> list[Answer]:
    return [_decode(line) for line in file.read_bytes().splitlines()] if file.exists() else []


def _row(writer: Writer, profile: Profile, multiple: float) -> int:
    settings = [feature.setting() for feature in profile.features]
    scaled = [msgspec.structs.replace(setting, strength=setting.strength * multiple) for setting in settings]
    return writer.tap.acquire(HookRow(tuple(coefficients(setting) for setting in scaled)))


def _steered(writer: Writer, rows: Sequence[tuple[str, float, int]], prompt: int, seed: int) -> Iterator[Answer]:
    """The base model's answer, and each profile's at each multiple."""
    ways = [("", 0.0, 0), *rows]
    written = writer.write(writer.prompt(PROMPTS[prompt]), [row for _, _, row in ways], seed)
    for (name, multiple, _), answer in zip(ways, written, strict=True):
        yield _answer(answer, profile=name, multiple=multiple, asked=False, prompt=prompt, seed=seed)


def _asked(writer: Writer, prompt: int, seed: int) -> Iterator[Answer]:
    prompts = [writer.prompt(PROMPTS[prompt], measure.system_prompt) for measure in MEASURES.values()]
    for name, answer in zip(MEASURES, writer.ask(prompts, seed), strict=True):
        yield _answer(answer, profile=name, multiple=0.0, asked=True, prompt=prompt, seed=seed)


def _answer(written: Written, *, profile: str, multiple: float, asked: bool, prompt: int, seed: int) -> Answer:
    return Answer(
        profile=profile,
        multiple=multiple,
        asked=asked,
        prompt=prompt,
        seed=seed,
        text=written.text,
        nll=written.nll,
        kl=written.kl,
    )
