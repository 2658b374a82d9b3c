"""`millm profiles` on this disk and on a server; differences of steerings."""

import json
from pathlib import Path

import pytest

from millm.cli.profile_tables import SteeringDifference, diff_steerings
from millm.profiles.schema import Profile, SteeringRequest
from tests.cli.terminal import CompletedCommand, assert_refused, millm
from tests.fixtures.process import Server
from tests.fixtures.tiny import write_profiles


@pytest.fixture
def files(tmp_path: Path) -> Path:
    write_profiles(tmp_path / "files")
    return tmp_path / "files"


def test_without_a_server(tmp_path: Path, files: Path) -> None:
    def profiles(*arguments: str, stdin: str = "") -> CompletedCommand:
        return millm("profiles", *arguments, home=tmp_path / "home", stdin=stdin, MILLM_PORT="1")

    imported = profiles("import", str(files / "push.json"), str(files / "hold.json"))
    assert (imported.code, "push" in imported.out, "added" in imported.out) == (0, True, True), imported
    (hold, push) = json.loads(profiles("list", "--json").out)
    assert (hold["name"], push["name"], push["misfit"]) == ("hold", "push", "no server runs")
    exported = profiles("export", "PUSH").out
    assert Profile.model_validate_json(exported) == Profile.model_validate_json((files / "push.json").read_bytes())
    assert_refused(profiles("import", "-", stdin=exported), "already")
    assert "feature 3" in profiles("diff", "push", "hold").out
    assert_refused(profiles("use", "push"), "no miLLM server")


def test_on_a_server(server: Server, tmp_path: Path) -> None:
    def profiles(*arguments: str) -> CompletedCommand:
        return millm("profiles", *arguments, "--url", server.url, home=tmp_path)

    assert "push steers" in profiles("use", "push").out
    assert [one["what"] for one in json.loads(profiles("diff", "hold", "--active", "--json").out)] == [
        "feature 3",
        "feature 7",
    ]
    assert "nothing steers" in profiles("off").out


def test_differences_by_feature() -> None:
    before = SteeringRequest.model_validate({"features": [{"index": 1, "strength": 2}, {"index": 2, "strength": 3}]})
    after = SteeringRequest.model_validate({"features": [{"index": 2, "mode": "ablate"}], "positions": "prompt"})
    assert diff_steerings(before, before) == []
    assert diff_steerings(before, after) == [
        SteeringDifference("feature 1", "+2 raw", None),
        SteeringDifference("feature 2", "+3 raw", "ablate"),
        SteeringDifference("positions", "all", "prompt"),
    ]


def test_a_steering_without_sae_names_is_compared_by_feature() -> None:
    def steering(*features: tuple[int, str | None]) -> SteeringRequest:
        fields = [{"index": index, "strength": 2, "sae": sae} for index, sae in features]
        return SteeringRequest.model_validate({"features": fields})

    assert diff_steerings(steering((1, None)), steering((1, "tiny"))) == []
    assert diff_steerings(steering((1, None)), steering((2, "tiny"))) == [
        SteeringDifference("feature 1", "+2 raw", None),
        SteeringDifference("feature 2", None, "+2 raw"),
    ]
    assert len(diff_steerings(steering((1, None)), steering((1, "a"), (1, "b")))) == 3
    assert len(diff_steerings(steering((1, "a")), steering((1, "b")))) == 2
