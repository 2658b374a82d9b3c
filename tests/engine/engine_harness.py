"""Runs the engine's loop in the test's thread, step by step."""

from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from millm.engine.core import EngineCore
from millm.engine.messages import (
    AttachSae,
    Command,
    CommandFailed,
    EngineEvent,
    Finished,
    Generate,
    LoadModel,
    PromptScores,
    Reading,
    Token,
    TokenScore,
)
from millm.engine.watchdog import Watchdog

CALIBRATION = (tuple(range(20, 60)), tuple(range(90, 150)))


@dataclass
class Answer:
    tokens: list[int] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    scores: list[TokenScore] = field(default_factory=list)
    end: Finished | CommandFailed | None = None

    def take(self, event: PromptScores | Token | Finished | CommandFailed) -> None:
        assert self.end is None, "something came after the end"
        match event:
            case PromptScores():
                self.scores += event.scores
            case Token():
                self.tokens.append(event.token)
            case _:
                self.end = event
        if isinstance(event, Token | Finished):
            self.readings += event.readings


@dataclass
class EngineHarness:
    """The engine's loop in this thread, step by step."""

    inbox: SimpleQueue[list[Command]] = field(default_factory=SimpleQueue)
    events: list[EngineEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engine = EngineCore(self.inbox, self.events.extend, Watchdog(600))

    def send(self, *commands: Command) -> None:
        self.inbox.put(list(commands))

    def execute(self, *commands: Command) -> None:
        self.send(*commands, Generate(id="nothing", prompt=(1,), max_tokens=1))
        self.run_until({"nothing"})

    def run_until(self, ids: set[str]) -> dict[str, Answer]:
        while not ids <= {event.id for event in self.events if isinstance(event, Finished | CommandFailed)}:
            self.engine.run_once()
        return self.answers()

    def answer(self, request: Generate) -> Answer:
        """Result of one request, beside those that run already."""
        self.send(request)
        return self.run_until({request.id})[request.id]

    def answers(self) -> dict[str, Answer]:
        answers: dict[str, Answer] = {}
        for event in self.events:
            if isinstance(event, PromptScores | Token | Finished | CommandFailed):
                answers.setdefault(event.id, Answer()).take(event)
        return answers


def load(harness: EngineHarness, model: Path, sae: Path, home: Path, **how: object) -> EngineHarness:
    harness.execute(
        LoadModel(id="load", path=str(model), special_ids=(0, 1, 2), **how),  # type: ignore[arg-type]
        AttachSae(
            id="attach", sae="tiny", path=str(sae), canonical_root=str(home), calibration_ids=CALIBRATION,
            model_name="tiny-llama",
        ),
    )  # fmt: skip
    assert not [event for event in harness.events if isinstance(event, CommandFailed)]
    return harness
