"""Parsing of `owner/name[/path][@revision]`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millm.errors import InvalidRequest
from millm.hub.jobs import DownloadSpec, parse_spec

INSIDE = "layer_12/width_16k/average_l0_82"


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("google/gemma-scope-2b-pt-res", DownloadSpec(kind="sae", repository="google/gemma-scope-2b-pt-res")),
        (f"google/x/{INSIDE}/", DownloadSpec(kind="sae", repository="google/x", path=INSIDE)),
        (f"google/x/{INSIDE}@v1.0", DownloadSpec(kind="sae", repository="google/x", path=INSIDE, revision="v1.0")),
        (" a/b@refs/pr/1 ", DownloadSpec(kind="sae", repository="a/b", revision="refs/pr/1")),
    ],
)
def test_valid_names_are_parsed(name: str, spec: DownloadSpec) -> None:
    assert parse_spec(name, "sae") == spec
    assert parse_spec(spec.name, "sae") == spec


def test_revision_may_be_given_separately() -> None:
    assert parse_spec("a/b", "model", "v2") == parse_spec("a/b@v2", "model") == parse_spec("a/b@v2", "model", "v2")
    with pytest.raises(InvalidRequest, match="two revisions"):
        parse_spec("a/b@v2", "model", "v3")


@pytest.mark.parametrize(
    "name",
    ["", "a", "/", "a/", "/a", "a//b", "a/b//c", "a/b/../c", "a/..", "../a", "a/b--c", "-a/b", "a/b c", "a/b@../c",
     "a/b@/c", "a/b@" + "v" * 129, "a/b/c\\d", "a/b/*", "a/b/[c]", "a/b/.", "https://huggingface.co/a/b", "ä/b"],
)  # fmt: skip
def test_invalid_names_are_rejected(name: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_spec(name, "sae")


def test_model_name_has_no_path() -> None:
    with pytest.raises(InvalidRequest, match="a model is a whole repository; give 'a/b'"):
        parse_spec("a/b/c", "model")


@given(st.text(max_size=40))
def test_accepted_names_never_leave_the_repository(name: str) -> None:
    try:
        spec = parse_spec(name, "sae")
    except InvalidRequest:
        return
    assert ".." not in spec.repository
    assert ".." not in spec.revision
    assert not {"..", ".", ""} & set((spec.path or "x").split("/"))
