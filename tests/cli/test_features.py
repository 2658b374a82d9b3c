"""`millm features`: tables, JSON and errors."""

import json
from pathlib import Path

import pytest

from millm.cli.features import feature_details, inspection_table, labels_table, separators_table
from millm.features.card import FeatureCard, Neighbour, PromotedToken, Strengths
from millm.features.search import (
    FeatureOnText,
    Firing,
    FoundLabel,
    FoundLabels,
    Inspection,
    ReadToken,
    Separator,
    Separators,
)
from tests.cli.samples import WIDTH, render
from tests.cli.terminal import CompletedCommand, millm
from tests.fixtures.process import Server

LONG = "a label that somebody wrote with much care, and with many more words than a terminal has room for \x1b[2J"


def features(server: Server, *arguments: str) -> CompletedCommand:
    return millm("features", *arguments, "--url", server.url, home=server.home)


def test_a_label_is_written_found_shown_and_removed(server: Server) -> None:
    assert "some waves" in features(server, "label", "11", "some waves", "--max-act", "3.5").out
    found = json.loads(features(server, "search", "wave", "--json").out)
    assert [one["index"] for one in found["features"]] == [11]
    assert "some waves" in features(server, "search", "wave").out
    sheet = features(server, "show", "11").out
    assert "some waves" in sheet
    assert "promotes" in sheet
    assert features(server, "label", "11", "").code == 0
    assert "no label has all of these words" in features(server, "search", "wave").out


def test_texts_are_inspected_and_contrasted(server: Server, tmp_path: Path) -> None:
    table = features(server, "inspect", "the sea is wide").out
    assert "features fire on" in table
    assert (
        len(json.loads(features(server, "inspect", "the sea", "--top-k", "1", "--json").out)["tokens"][0]["top"]) == 1
    )
    (tmp_path / "loud.txt").write_text("STOP THAT\n\nWHAT A DAY\n")
    sides = ["--a", f"@{tmp_path / 'loud.txt'}", "--b", "stop that", "--b", "what a day"]
    separators = json.loads(features(server, "contrast", *sides, "--name", "loud", "--json").out)
    assert separators["profile"]["name"] == "loud"
    assert f"{separators['more_in_a'][0]['index']:>9}  " in features(server, "contrast", *sides).out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "96"], "feature 96 is not in 0..95"),
        (["search", "x", "--sae", "nope"], "no SAE named 'nope' is attached"),
        (["contrast", "--a", "x"], "--b needs a text"),
        (["contrast", "--a", "@/nowhere/at/all", "--b", "x"], "cannot be read as text"),
    ],
)
def test_invalid_requests_are_one_error_line(server: Server, arguments: list[str], message: str) -> None:
    ran = features(server, *arguments)
    assert ran.code == 1
    assert message in ran.last_line


def test_no_server_names_the_command_that_starts_one(tmp_path: Path) -> None:
    ran = millm("features", "search", "x", "--url", "http://127.0.0.1:9", home=tmp_path)
    assert ran.code == 1
    assert "millm demo" in ran.last_line


def test_tables_fit_80_columns_without_control_characters() -> None:
    label = FoundLabel(sae=LONG, index=2**31 - 1, label=LONG, max_act=1e30, density=1.0, source=LONG)
    token = PromotedToken(id=1, token="\x1b]0;a title that is very long indeed\x07", logit=1.0)
    card = FeatureCard(
        sae=LONG, index=2**31 - 1, label=LONG, source=LONG, max_act=1e30, density=1e-9, layer=99,
        hook_point="blocks.99.hook_resid_post", decoder_norm=1.0, promoted=(token,) * 10, suppressed=(token,) * 10,
        neighbours=(Neighbour(index=2**31 - 1, cosine=-0.5, label=LONG),),
        strengths=Strengths(half_norm=1e30, half_max_act=None), observed=None, neuronpedia=f"https://example.org/{LONG}",
    )  # fmt: skip
    fires = (Firing(2**31 - 1, 1e30, LONG),) * 100
    read = ReadToken(position=0, id=1, token="\n" + LONG, counts=False, top=fires, values=())
    on_text = FeatureOnText(index=2**31 - 1, label=LONG, max=1e30, mean=1e-30, count=10**6)
    one = Separator(index=2**31 - 1, label=LONG, score=-1234.5, auc=0.5, mean_a=1e30, mean_b=1e-30, max=1e30)
    for drawable in (
        labels_table(FoundLabels(total=10**6, features=(label,))),
        feature_details(card),
        inspection_table(Inspection(sae=LONG, tokens=(read,), counted=1, features=(on_text,), fired=10**6)),
        separators_table(Separators(sae=LONG, more_in_a=(one,), more_in_b=(), profile=None)),
    ):
        text = render(drawable)
        assert all(len(line) <= WIDTH for line in text.splitlines())
        assert not any(ord(character) < 32 and character != "\n" for character in text)
