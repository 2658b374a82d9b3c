"""What a server says of itself where nobody sits at a terminal: the same as lines of its log, all of which is JSON."""

from contextlib import AbstractContextManager

import structlog

from millm.cli.exposure import warnings_of
from millm.cli.progress import Reporter, reporting_to
from millm.state import State

log = structlog.get_logger()


class InLog:
    def reporting(self) -> AbstractContextManager[Reporter]:
        return reporting_to(_Stages())

    def is_ready(self, state: State, url: str, host: str) -> None:
        for told in (state.hub.database.notice, state.cause.message if state.cause else None):
            if told:
                log.error("server.notice", text=told)
        for warned in warnings_of(state.settings, host):
            log.warning("server.open", text=warned.text)
        for attached in state.saes.values():
            for text in attached.facts.warnings:
                log.warning("sae.warning", sae=attached.facts.sae, text=text)
        facts = state.model.facts if state.model else None
        log.info(
            "server.ready",
            url=url,
            model=state.model.name if state.model else None,
            device=facts.device if facts else None,
            weights=facts.weights if facts else None,
            saes=list(state.saes),
            profiles=len(state.profiles),
        )

    def stops(self, answers: int, seconds: float) -> None:
        log.info("server.stopping", answers=answers, seconds=seconds if answers else 0.0)

    def sends_away(self, answers: int) -> None:
        if answers:
            log.warning("server.answers_ended", answers=answers)

    def has_stopped(self) -> None:
        log.info("server.stopped")


class _Stages:
    """Each once: a bar would be a thousand lines."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def __call__(self, stage: str, _done: int, total: int) -> None:
        if stage not in self._told:
            self._told.add(stage)
            log.info("server.stage", stage=stage, total=total)
