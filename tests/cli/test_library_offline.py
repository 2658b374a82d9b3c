"""The commands of the library without a server: they use this disk, and lock the home while they write."""

import json
from collections.abc import Iterator
from math import inf
from pathlib import Path

import pytest

from millm.hub.home import Home
from tests.cli.library_home import LibraryHome, library_home
from tests.cli.terminal import assert_refused, assert_refused_at_once
from tests.fixtures.fakehub import FakeHub, serving
from tests.fixtures.repos import GEMMA, GPT2, LLAMA, LLAMA_SAE, SCOPE_SAE, write_repositories
from tests.fixtures.screen import CTRL_C


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeHub]:
    with serving(write_repositories(tmp_path_factory.mktemp("hub"))) as running:
        yield running


@pytest.fixture
def disk(hub: FakeHub, tmp_path: Path) -> LibraryHome:
    hub.forget()
    return library_home(hub, tmp_path)


def test_pull_list_show_and_remove(disk: LibraryHome) -> None:
    assert disk.millm("list").out.startswith("no models here yet")
    pulled = disk.millm("pull", GEMMA)
    assert (pulled.code, pulled.leftover_processes) == (0, []), pulled
    for word in ("licence", "gemma", "Gemma2ForCausalLM", "float32", "to download", "known SAEs", "installed"):
        assert word in pulled.err
    assert disk.millm("pull", SCOPE_SAE).code == 0

    (model,) = json.loads(disk.millm("list", "--json").out)
    (sae, _) = json.loads(disk.millm("list", "--saes", "--json").out)
    assert (model["id"], model["state"], model["is_verified"]) == (GEMMA, "whole", True)
    assert (sae["id"], sae["state"], sae["is_verified"]) == (SCOPE_SAE, "whole", True)
    shown = disk.millm("show", GEMMA).out
    assert "every file verified" in shown
    assert "4bit" in shown
    estimate = json.loads(disk.millm("estimate", GEMMA, "--sae", SCOPE_SAE, "--slots", "4", "--json").out)
    assert (estimate["model"], estimate["slots"], estimate["saes"] > 0) == (GEMMA, 4, True)

    assert_refused(disk.millm("rm", GEMMA), "--yes")
    assert "freed" in disk.millm("rm", GEMMA, "--yes").out
    assert "freed" in disk.millm("rm", SCOPE_SAE, "-y").out
    assert disk.millm("list", "--json").out.strip() == "[]"


def test_installed_files_are_not_downloaded_again(disk: LibraryHome) -> None:
    assert disk.millm("pull", LLAMA).code == 0
    disk.hub.forget()
    again = disk.millm("pull", LLAMA)
    assert (again.code, "nothing: it is all here" in again.err) == (0, True)
    assert not any(path.endswith(".safetensors") for path in disk.hub.downloaded)


def test_json_lines_report_each_job_change(disk: LibraryHome) -> None:
    ran = disk.millm("pull", LLAMA_SAE, "--sae", "--json")
    jobs = [json.loads(line) for line in ran.out.splitlines()]
    assert (ran.code, ran.err) == (0, "")
    assert len({job["id"] for job in jobs}) == 1
    assert jobs[-1]["state"] == "installed"
    assert jobs[-1]["done"] == jobs[-1]["total"] > 0


def test_a_retry_is_reported(disk: LibraryHome) -> None:
    disk.hub.fail("model.safetensors", "status", status=503)
    states = [json.loads(line) for line in disk.millm("pull", LLAMA, "--json").out.splitlines()]
    (waiting, *_) = [job for job in states if job["state"] == "waiting"]
    assert waiting["problem"]["message"]
    assert states[-1]["state"] == "installed"


def test_ctrl_c_leaves_finished_files(disk: LibraryHome) -> None:
    disk.hub.fail(".safetensors", "slow", times=inf, speed=40_000)
    with disk.on_screen("pull", GEMMA) as terminal:
        terminal.watch(lambda text: "/s  " in text)
        terminal.type(CTRL_C)
        text = terminal.to_the_end()
    assert terminal.process.returncode == 130
    assert f"what is finished stays; `millm pull {GEMMA}` goes on with it" in text.replace("\n", " ")
    assert "Traceback" not in text
    disk.hub.forget()
    assert disk.millm("pull", GEMMA).code == 0


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
def test_invalid_requests_are_rejected(disk: LibraryHome, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    disk.hub.gated = {GPT2}
    assert_refused(disk.millm(*arguments), *words)
    disk.hub.gated = set()


def test_a_full_disk_is_rejected_before_the_download(disk: LibraryHome) -> None:
    ran = disk.millm("pull", LLAMA, MILLM_DOWNLOAD_RESERVE_BYTES=str(10**18))
    assert_refused(ran, LLAMA, "free", "MILLM_DOWNLOAD_RESERVE_BYTES")
    assert not any(path.endswith(".safetensors") for path in disk.hub.downloaded)


@pytest.mark.parametrize("arguments", [("load", LLAMA), ("unload",), ("attach", "x"), ("detach", "x"), ("ps",)])
def test_commands_that_need_a_server_say_how_to_start_one(disk: LibraryHome, arguments: tuple[str, ...]) -> None:
    assert_refused_at_once(disk.millm(*arguments), "no miLLM server answers", "millm serve", "--url")


def test_an_unreachable_url_does_not_fall_back_to_this_disk(disk: LibraryHome) -> None:
    url = f"http://127.0.0.1:{disk.port}"
    assert_refused_at_once(disk.millm("list", "--url", url), "no miLLM server answers")


def test_import_of_a_local_folder(disk: LibraryHome, tiny_model: Path, tiny_sae: Path) -> None:
    assert "a folder of yours" in disk.millm("import", str(tiny_model), "--name", "mine").out
    assert disk.millm("import", str(tiny_sae), "--sae").code == 0
    assert [entry["id"] for entry in json.loads(disk.millm("list", "--json").out)] == ["mine"]
    assert_refused(disk.millm("import", str(tiny_model), "--name", "mine"), "mine", "--name")
    removed = disk.millm("rm", "mine", "--yes")
    assert "only the link goes" in removed.err
    assert (tiny_model / "config.json").is_file()


def test_writing_locks_the_home(disk: LibraryHome) -> None:
    home = Home(disk.home)
    home.create()
    with home.lock():
        assert_refused(disk.millm("pull", LLAMA), "another miLLM server", "MILLM_HOME")
        assert disk.millm("list").code == 0


def test_rm_needs_a_confirmation(disk: LibraryHome) -> None:
    assert disk.millm("pull", LLAMA).code == 0
    for answer, code in ((b"n\n", 1), (b"y\n", 0)):
        with disk.on_screen("rm", LLAMA) as terminal:
            question = terminal.watch(lambda text: "Delete it?" in text)
            assert "would be freed" in question
            terminal.type(answer)
            terminal.to_the_end()
        assert terminal.process.returncode == code
    assert disk.millm("list", "--json").out.strip() == "[]"
