"""The commands of the library without a server: on this disk, holding the home while they write."""

import json
from collections.abc import Iterator
from math import inf
from pathlib import Path

import pytest

from millm.hub.home import Home
from tests.cli.shelf import Shelf, shelf
from tests.cli.terminal import assert_refused, assert_refused_at_once
from tests.fixtures.fakehub import FakeHub, serving
from tests.fixtures.repos import GEMMA, GPT2, LLAMA, LLAMA_SAE, SCOPE_SAE, write_repositories
from tests.fixtures.screen import CTRL_C


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeHub]:
    with serving(write_repositories(tmp_path_factory.mktemp("hub"))) as running:
        yield running


@pytest.fixture
def here(hub: FakeHub, tmp_path: Path) -> Shelf:
    hub.forget()
    return shelf(hub, tmp_path)


def test_from_the_hub_to_the_disk_and_off_it_again(here: Shelf) -> None:
    assert here.millm("list").out.startswith("no models here yet")
    pulled = here.millm("pull", GEMMA)
    assert (pulled.code, pulled.left) == (0, []), pulled
    for told in ("licence", "gemma", "Gemma2ForCausalLM", "float32", "to download", "known SAEs", "installed"):
        assert told in pulled.err
    assert here.millm("pull", SCOPE_SAE).code == 0

    (model,) = json.loads(here.millm("list", "--json").out)
    (sae, _) = json.loads(here.millm("list", "--saes", "--json").out)
    assert (model["id"], model["state"], model["is_verified"]) == (GEMMA, "whole", True)
    assert (sae["id"], sae["state"], sae["is_verified"]) == (SCOPE_SAE, "whole", True)
    shown = here.millm("show", GEMMA).out
    assert "every file verified" in shown
    assert "4bit" in shown
    estimate = json.loads(here.millm("estimate", GEMMA, "--sae", SCOPE_SAE, "--slots", "4", "--json").out)
    assert (estimate["model"], estimate["slots"], estimate["saes"] > 0) == (GEMMA, 4, True)

    assert_refused(here.millm("rm", GEMMA), "--yes")
    assert "freed" in here.millm("rm", GEMMA, "--yes").out
    assert "freed" in here.millm("rm", SCOPE_SAE, "-y").out
    assert here.millm("list", "--json").out.strip() == "[]"


def test_what_is_here_already_is_not_fetched_again(here: Shelf) -> None:
    assert here.millm("pull", LLAMA).code == 0
    here.hub.forget()
    again = here.millm("pull", LLAMA)
    assert (again.code, "nothing: it is all here" in again.err) == (0, True)
    assert not any(path.endswith(".safetensors") for path in here.hub.downloaded)


def test_json_lines_tell_each_change(here: Shelf) -> None:
    ran = here.millm("pull", LLAMA_SAE, "--sae", "--json")
    jobs = [json.loads(line) for line in ran.out.splitlines()]
    assert (ran.code, ran.err) == (0, "")
    assert len({job["id"] for job in jobs}) == 1
    assert jobs[-1]["state"] == "installed"
    assert jobs[-1]["done"] == jobs[-1]["total"] > 0


def test_a_retry_is_told(here: Shelf) -> None:
    here.hub.fail("model.safetensors", "status", status=503)
    states = [json.loads(line) for line in here.millm("pull", LLAMA, "--json").out.splitlines()]
    (waiting, *_) = [job for job in states if job["state"] == "waiting"]
    assert waiting["problem"]["message"]
    assert states[-1]["state"] == "installed"


def test_ctrl_c_keeps_what_is_finished(here: Shelf) -> None:
    here.hub.fail(".safetensors", "slow", times=inf, speed=40_000)
    with here.on_screen("pull", GEMMA) as terminal:
        terminal.watch(lambda text: "/s  " in text)
        terminal.type(CTRL_C)
        text = terminal.to_the_end()
    assert terminal.process.returncode == 130
    assert f"what is finished stays; `millm pull {GEMMA}` goes on with it" in text.replace("\n", " ")
    assert "Traceback" not in text
    here.hub.forget()
    assert here.millm("pull", GEMMA).code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("rm", "smollm2-135m-l20-4k", "--yes"), ("ships with miLLM",)),
        (("pull", "nobody/nothing"), ("nobody/nothing",)),
        (("pull", "not an id"), ("not an id",)),
        (("pull", GPT2), ("licence", "HF_TOKEN")),
        (("show", "nothing"), ("'nothing'", "millm list")),
        (("rm", "nothing", "--yes"), ("'nothing'", "millm list")),
        (("estimate", "nothing"), ("'nothing'",)),
        (("pull", LLAMA, "--cancel"), ("no server runs",)),
        (("import", "/nowhere/at/all"), ("all",)),
    ],
)
def test_refusals(here: Shelf, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    here.hub.gated = {GPT2}
    assert_refused(here.millm(*arguments), *words)
    here.hub.gated = set()


def test_a_disk_that_is_short(here: Shelf) -> None:
    ran = here.millm("pull", LLAMA, MILLM_DOWNLOAD_RESERVE_BYTES=str(10**18))
    assert_refused(ran, LLAMA, "free", "MILLM_DOWNLOAD_RESERVE_BYTES")
    assert not any(path.endswith(".safetensors") for path in here.hub.downloaded)


@pytest.mark.parametrize("arguments", [("load", LLAMA), ("unload",), ("attach", "x"), ("detach", "x"), ("ps",)])
def test_what_needs_a_server_says_how_to_start_one(here: Shelf, arguments: tuple[str, ...]) -> None:
    assert_refused_at_once(here.millm(*arguments), "no miLLM server answers", "millm serve", "--url")


def test_a_named_server_that_is_not_there_is_not_replaced_by_this_disk(here: Shelf) -> None:
    url = f"http://127.0.0.1:{here.port}"
    assert_refused_at_once(here.millm("list", "--url", url), "no miLLM server answers")


def test_a_folder_of_ones_own(here: Shelf, tiny_model: Path, tiny_sae: Path) -> None:
    assert "a folder of yours" in here.millm("import", str(tiny_model), "--name", "mine").out
    assert here.millm("import", str(tiny_sae), "--sae").code == 0
    assert [entry["id"] for entry in json.loads(here.millm("list", "--json").out)] == ["mine"]
    assert_refused(here.millm("import", str(tiny_model), "--name", "mine"), "mine", "--name")
    removed = here.millm("rm", "mine", "--yes")
    assert "only the link goes" in removed.err
    assert (tiny_model / "config.json").is_file()


def test_what_writes_holds_the_home(here: Shelf) -> None:
    home = Home(here.home)
    home.create()
    with home.lock():
        assert_refused(here.millm("pull", LLAMA), "another miLLM server", "MILLM_HOME")
        assert here.millm("list").code == 0


def test_rm_asks(here: Shelf) -> None:
    assert here.millm("pull", LLAMA).code == 0
    for answer, code in ((b"n\n", 1), (b"y\n", 0)):
        with here.on_screen("rm", LLAMA) as terminal:
            asked = terminal.watch(lambda text: "Delete it?" in text)
            assert "would be freed" in asked
            terminal.type(answer)
            terminal.to_the_end()
        assert terminal.process.returncode == code
    assert here.millm("list", "--json").out.strip() == "[]"
