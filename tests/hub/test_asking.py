"""Names of repositories, revisions and folders inside, or a refusal that says which is wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millm.errors import InvalidRequest
from millm.hub.jobs import DownloadSpec, parse_spec

INSIDE = "layer_12/width_16k/average_l0_82"


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("google/gemma-scope-2b-pt-res", DownloadSpec(kind="sae", repository="google/gemma-scope-2b-pt-res")),
        (f"google/x/{INSIDE}/", DownloadSpec(kind="sae", repository="google/x", path=INSIDE)),
        (f"google/x/{INSIDE}@v1.0", DownloadSpec(kind="sae", repository="google/x", path=INSIDE, revision="v1.0")),
        (" a/b@refs/pr/1 ", DownloadSpec(kind="sae", repository="a/b", revision="refs/pr/1")),
    ],
)
def test_what_is_asked(name: str, asked: DownloadSpec) -> None:
    assert parse_spec(name, "sae") == asked
    assert parse_spec(asked.name, "sae") == asked


def test_a_revision_may_come_apart() -> None:
    assert parse_spec("a/b", "model", "v2") == parse_spec("a/b@v2", "model") == parse_spec("a/b@v2", "model", "v2")
    with pytest.raises(InvalidRequest, match="two revisions"):
        parse_spec("a/b@v2", "model", "v3")


@pytest.mark.parametrize(
    "name",
    ["", "a", "/", "a/", "/a", "a//b", "a/b//c", "a/b/../c", "a/..", "../a", "a/b--c", "-a/b", "a/b c", "a/b@../c",
     "a/b@/c", "a/b@" + "v" * 129, "a/b/c\\d", "a/b/*", "a/b/[c]", "a/b/.", "https://huggingface.co/a/b", "ä/b"],
)  # fmt: skip
def test_what_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_spec(name, "sae")


def test_a_model_is_a_whole_repository() -> None:
    with pytest.raises(InvalidRequest, match="a model is a whole repository; give 'a/b'"):
        parse_spec("a/b/c", "model")


@given(st.text(max_size=40))
def test_nothing_that_is_accepted_climbs(name: str) -> None:
    try:
        asked = parse_spec(name, "sae")
    except InvalidRequest:
        return
    assert ".." not in asked.repository
    assert ".." not in asked.revision
    assert not {"..", ".", ""} & set((asked.path or "x").split("/"))
