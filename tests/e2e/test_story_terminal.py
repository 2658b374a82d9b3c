"""The same story in the terminal: every command a process of its own, over one running server."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.library_home import LibraryHome, library_home
from tests.cli.terminal import CompletedCommand, assert_refused
from tests.fixtures.fakehub import serving
from tests.fixtures.repos import GEMMA, SCOPE_SAE


@pytest.mark.timeout(240)
def test_from_the_hub_to_the_device_and_back(repositories: Path, tmp_path: Path) -> None:
    with serving(repositories) as hub:
        there = library_home(hub, tmp_path)
        with there.served():
            it_is_pulled(there)
            it_is_loaded_and_attached(there)
            it_is_not_removed_while_it_is_in_use(there)
            it_is_detached_unloaded_and_removed(there)


def done(ran: CompletedCommand) -> CompletedCommand:
    """Checks that the command succeeded and left no process."""
    assert (ran.code, ran.leftover_processes) == (0, []), ran
    return ran


def it_is_pulled(there: LibraryHome) -> None:
    assert "no model is loaded" in done(there.millm("ps")).out
    output = done(there.millm("pull", GEMMA)).err
    for word in (GEMMA, "gemma", "Gemma2ForCausalLM", "installed"):
        assert word in output
    assert "installed" in done(there.millm("pull", SCOPE_SAE)).err
    assert GEMMA in done(there.millm("list")).out
    assert SCOPE_SAE in done(there.millm("list", "--saes")).out


def it_is_loaded_and_attached(there: LibraryHome) -> None:
    assert GEMMA in done(there.millm("load", GEMMA, "--slots", "4")).out
    attached = done(there.millm("attach", SCOPE_SAE)).out
    for output in (SCOPE_SAE, "explains", "L0", "residual norm", "blocks.12.hook_resid_post"):
        assert output in attached

    running = what_runs(there)
    assert (running["status"], running["model"]["name"]) == ("ready", GEMMA)
    assert [sae["sae"] for sae in running["saes"]] == [SCOPE_SAE]
    assert running["model"]["facts"]["slots"] == 4
    shown = done(there.millm("ps")).out
    assert [word for word in (GEMMA, SCOPE_SAE, "CPU", "for good") if word not in shown] == []
    assert " loaded" in done(there.millm("list")).out
    assert " attached" in done(there.millm("list", "--saes")).out


def it_is_not_removed_while_it_is_in_use(there: LibraryHome) -> None:
    assert_refused(there.millm("rm", GEMMA, "--yes"), GEMMA, "loaded")
    assert_refused(there.millm("rm", SCOPE_SAE, "--yes"), SCOPE_SAE, "attached")


def it_is_detached_unloaded_and_removed(there: LibraryHome) -> None:
    detached = done(there.millm("detach", SCOPE_SAE)).out
    assert (GEMMA in detached, SCOPE_SAE in detached) == (True, False)
    assert what_runs(there)["saes"] == []
    assert "no model is loaded" in done(there.millm("unload")).out
    assert what_runs(there)["model"] is None
    assert "freed" in done(there.millm("rm", GEMMA, "--yes")).out
    assert "freed" in done(there.millm("rm", SCOPE_SAE, "--yes")).out
    assert GEMMA not in done(there.millm("list")).out
    assert SCOPE_SAE not in done(there.millm("list", "--saes")).out
    assert_refused(there.millm("load", GEMMA), GEMMA)


def what_runs(there: LibraryHome) -> Any:
    return json.loads(done(there.millm("ps", "--json")).out)
