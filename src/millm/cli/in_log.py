"""What a server says of itself where nobody sits at a terminal: the same as lines of its log, all of which is JSON."""

from contextlib import AbstractContextManager

import structlog

from millm.cli.exposure import exposure_warnings
from millm.cli.progress import ProgressReporter, progress_reporter
from millm.state import State

log = structlog.get_logger()


class LogAnnouncer:
    def show_progress(self) -> AbstractContextManager[ProgressReporter]:
        return progress_reporter(_StageLogger())

    def announce_ready(self, state: State, url: str, host: str) -> None:
        for told in (state.hub.database.notice, state.cause.message if state.cause else None):
            if told:
                log.error("server.notice", text=told)
        for warned in exposure_warnings(state.settings, host):
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

    def announce_stopping(self, answers: int, seconds: float) -> None:
        log.info("server.stopping", answers=answers, seconds=seconds if answers else 0.0)

    def announce_aborted_answers(self, answers: int) -> None:
        if answers:
            log.warning("server.answers_ended", answers=answers)

    def announce_stopped(self) -> None:
        log.info("server.stopped")


class _StageLogger:
    """Each once: a bar would be a thousand lines."""

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def __call__(self, stage: str, _done: int, total: int) -> None:
        if stage not in self._logged:
            self._logged.add(stage)
            log.info("server.stage", stage=stage, total=total)
