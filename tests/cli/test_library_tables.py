"""Tables and sheets: complete within 80 columns, and without information by colour alone."""

import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from rich.console import RenderableType

from millm.cli.library_tables import (
    BAR_WIDTH,
    attached_sae_details,
    bar_text,
    deletion_line,
    estimate_table,
    freed_line,
    job_lines,
    job_state_text,
    model_details,
    models_table,
    preview_details,
    quantizations_table,
    sae_details,
    saes_table,
)
from millm.cli.models import status_table
from millm.cli.terminal import IdText, format_bytes, format_bytes_progress, format_duration, format_parameters, wrap_id
from millm.hardware import CpuFallbackReason
from millm.hub.entries import DeletionResult
from millm.hub.jobs import Problem
from millm.status import Cause, ChangeInProgress
from tests.cli.samples import (
    EMPTY,
    ESTIMATE,
    GEMMA,
    JOB,
    MODEL_ENTRY,
    MODEL_FACTS,
    PREVIEW,
    SAE,
    SAE_ENTRY,
    SAE_FACTS,
    STATUS,
    WIDTH,
    render,
)

LONG = "mistral-community/" + "-".join(["a-name-that-somebody-found-good"] * 3)
REASON = "the connection to the hub broke off in the middle of model-00001-of-00003.safetensors, for the third time"


def drawables() -> Iterator[RenderableType]:
    """Each table and sheet, with usual and with extreme values."""
    huge = 10**14
    for name in (GEMMA, LONG):
        model = replace(MODEL_ENTRY, id=name, size=huge, shared=huge // 2, parameters=10**12, problem=REASON)
        yield models_table([MODEL_ENTRY, model])
        yield model_details(model, 13_857)
        facts = replace(MODEL_FACTS, weights="bitsandbytes 4-bit", context_length=10**7)
        yield status_table(replace(STATUS, model=replace(STATUS.model, name=name, facts=facts), degraded=REASON))
        yield estimate_table(replace(ESTIMATE, model=name, evictable=huge, advice=REASON, verdict="does_not_fit"))
        yield preview_details(replace(PREVIEW, name=name, size=huge, has_access=False, link=f"https://hub/{name}"))
        for state in ("queued", "running", "waiting", "verifying", "converting", "failed", "installed"):
            problem = Problem(code="download_failed", message=REASON)
            yield job_lines(replace(JOB, name=name, state=state, problem=problem, retry_in=3600.0))
    for name in (SAE, f"{LONG}/layer_20/width_16k/average_l0_71"):
        yield saes_table([SAE_ENTRY, replace(SAE_ENTRY, id=name, width=2**20, size=huge, problem=REASON)])
        yield sae_details(replace(SAE_ENTRY, id=name))
        yield attached_sae_details(replace(SAE_FACTS, sae=name, warnings=(REASON, REASON)), LONG)
        yield status_table(replace(STATUS, saes=(SAE_FACTS, replace(SAE_FACTS, sae=name))))
        yield freed_line(DeletionResult(id=name, bytes=huge, kept=huge))
    yield quantizations_table(
        [replace(ESTIMATE, quantization=name, total=huge, free=huge) for name in ("none", "8bit")]
    )


@pytest.mark.parametrize("drawable", list(drawables()))
def test_tables_fit_80_columns_and_cut_nothing(drawable: RenderableType) -> None:
    """80 columns show the same text as 1000, with other line breaks."""
    text = render(drawable)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "…" not in text
    if not re.search("[━█]", text):  # the length of a bar depends on the width
        assert sorted(re.sub(r"\s", "", text)) == sorted(re.sub(r"\s", "", render(drawable, 1000)))


@given(st.lists(st.text("abc-_.", min_size=1, max_size=30), min_size=1, max_size=6).map("/".join), st.integers(1, 80))
def test_an_id_breaks_only_behind_a_slash(id: str, width: int) -> None:
    lines = list(wrap_id(id, width))
    assert "".join(lines) == id
    assert all(line.endswith("/") for line in lines[:-1])
    assert all(len(line) <= width or "/" not in line[:-1] for line in lines)


def test_an_id_can_be_copied_from_a_table() -> None:
    text = render(saes_table([SAE_ENTRY]))
    first, second = text.splitlines()[1:]
    assert first.split()[0] + second.strip() == SAE


def test_control_characters_of_a_repository_do_not_reach_the_terminal() -> None:
    evil = "owner/\x1b[2Jname\x07"
    for drawable in (IdText(evil), models_table([replace(MODEL_ENTRY, id=evil, dtype="\x1b]0;x\x07")])):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", render(drawable))


@given(st.integers(0, 10**16))
def test_sizes_are_rounded_to_the_last_digit(count: int) -> None:
    value, unit = format_bytes(count).split()
    scale = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    digit = 1.0 if "." not in value else 0.1
    assert abs(float(value) * scale - count) <= digit * scale * 0.5001
    assert len(value) <= 5


@given(st.floats(0, 1e6))
def test_durations_are_rounded_to_the_last_unit(seconds: float) -> None:
    units = {"s": 1, "min": 60, "h": 3600}
    words = format_duration(seconds).split()
    shown = sum(int(value) * units[unit] for value, unit in zip(words[::2], words[1::2], strict=True))
    assert abs(shown - seconds) <= (0.5 if "s" in words else 60)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (format_bytes(None), "–"),
        (format_bytes(0), "0 B"),
        (format_bytes(999_960), "1.0 MB"),
        (format_bytes_progress(1_210_000_000, 5_228_000_000), "1.2 / 5.2 GB"),
        (format_bytes_progress(9_100_000, 5_228_000_000), "9.1 MB / 5.2 GB"),
        (format_parameters(134_515_008), "135 M"),
        (format_parameters(2_614_341_888), "2.6 B"),
        (format_parameters(812), "812"),
        (format_duration(166.2), "2 min 46 s"),
        (format_duration(11_100), "3 h 05 min"),
    ],
)
def test_quantities(text: str, expected: str) -> None:
    assert text == expected


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_bars_are_in_proportion(one: int, other: int) -> None:
    largest = max(one, other)
    assert max(len(bar_text(one, largest)), len(bar_text(other, largest))) == (BAR_WIDTH if largest else 0)
    assert (one > 0) == bool(bar_text(one, largest))
    if one < other:
        assert len(bar_text(one, largest)) <= len(bar_text(other, largest))


def test_the_parts_of_an_estimate_are_all_there() -> None:
    text = render(estimate_table(ESTIMATE))
    for count in (ESTIMATE.weights, ESTIMATE.kv_cache, ESTIMATE.saes, ESTIMATE.activations, ESTIMATE.total):
        assert format_bytes(count) in text
    assert "verdict: fits" in text


def test_unknown_parts_of_an_estimate() -> None:
    text = render(estimate_table(replace(ESTIMATE, weights=None, total=None, free=None, verdict="unknown")))
    assert re.search(r"^weights +–$", text, re.MULTILINE)
    assert "verdict: unknown" in text


def test_a_waiting_job_shows_its_reason() -> None:
    job = replace(JOB, state="waiting", retry_in=8.2, problem=Problem(code="x", message="the connection broke off"))
    assert "waiting 8 s: the connection broke off" in render(job_lines(job))
    assert job_state_text(replace(job, problem=None)) == "waiting 8 s: the network"


def test_progress_shows_bytes_speed_time_and_files() -> None:
    assert "1.2 / 5.2 GB  24.1 MB/s  2 min 46 s left  3/8 files" in render(job_lines(JOB))


def test_cpu_reason_is_shown_only_on_the_cpu() -> None:
    facts = replace(MODEL_FACTS, device="cpu", weights="float32")
    on_cpu = replace(STATUS, model=replace(STATUS.model, facts=facts))
    reason = CpuFallbackReason(message="this torch is built for the CPU only", fix="install another")
    assert "this torch is built for the CPU only → install another" in render(status_table(on_cpu, reason), 200)
    assert reason.message not in render(status_table(on_cpu))
    assert reason.message not in render(status_table(STATUS, reason))


@pytest.mark.parametrize(("device", "text"), [("cuda:0", "100% GPU "), ("cuda:1", "100% GPU 1"), ("cpu", "CPU")])
def test_device_column(device: str, text: str) -> None:
    status = replace(STATUS, model=replace(STATUS.model, facts=replace(MODEL_FACTS, device=device)))
    assert f"  {text}" in render(status_table(status))


def test_a_change_in_progress_is_shown() -> None:
    changing = ChangeInProgress(what="load", name=GEMMA, stage="reading weights", done=1, total=4)
    text = render(status_table(replace(EMPTY, status="loading", changing=changing)))
    assert f"loading {GEMMA}: reading weights, 25 %" in text


def test_the_cause_of_an_empty_server_is_shown() -> None:
    cause = Cause(code="model_too_large", message="it needs 300 GB, and there are 80 GB")
    text = render(status_table(replace(EMPTY, cause=cause)))
    assert "no model is loaded" in text
    assert "! it needs 300 GB, and there are 80 GB" in text


def test_deletion_line() -> None:
    shared = replace(MODEL_ENTRY, size=5_000_000_000, shared=1_000_000_000)
    assert deletion_line(shared) == f"{GEMMA}: 4.0 GB would be freed; 1.0 GB stay, because others use them"
    assert "only the link goes" in deletion_line(replace(MODEL_ENTRY, origin="imported"))


def test_an_empty_library_names_the_next_command() -> None:
    assert "`millm pull owner/name`" in render(models_table([]))
    assert "`millm saes" in render(saes_table([]))
