"""Every fenced block of the documentation is run by a test, or listed with the reason why it is not."""

import re

import pytest

from tests.docs.blocks import ROOT, RUN, SHELL, SHOWN, WRITTEN, all_blocks, blocks_of, name_of
from tests.docs.notrun import NOT_RUN, NotRun, is_listed
from tests.docs.walked import CLIENTS, DEMO, ELSEWHERE, EMPTY

PAGES = (*DEMO, *CLIENTS, *EMPTY, *ELSEWHERE)


def test_every_page_with_something_to_run_is_run() -> None:
    running = {block.page for block in all_blocks() if block.language in RUN and not _is_listed_whole(block.page)}
    assert running == set(PAGES), "add the page to tests/docs/walked.py, or its blocks to tests/docs/notrun.py"
    assert len(PAGES) == len(set(PAGES))


def _is_listed_whole(page: str) -> bool:
    """Nothing on it runs."""
    blocks = [block for block in blocks_of(ROOT / page) if block.language in RUN]
    return all(
        is_listed(page, block.text)
        or (block.language in SHELL and all(is_listed(page, command) for command in block.commands))
        for block in blocks
    )


def test_every_block_has_a_language_that_says_what_to_do_with_it() -> None:
    assert {block.language for block in all_blocks()} <= {*RUN, *SHOWN}


def test_no_block_is_overlooked() -> None:
    """A fence that the reader of blocks does not see is not run either."""
    for path in WRITTEN:
        fences = re.findall(r"^ *```", path.read_text("utf-8"), re.MULTILINE)
        assert len(fences) == 2 * len(list(blocks_of(path))), name_of(path)


def test_what_a_page_prints_is_compared_where_something_printed_it() -> None:
    for path in WRITTEN:
        before = ""
        for block in blocks_of(path):
            assert block.title != "prints" or before in (*SHELL, "python"), f"{block.page}: {block.text}"
            before = block.language


@pytest.mark.parametrize("entry", NOT_RUN, ids=lambda entry: f"{entry.page}: {entry.begins}")
def test_what_is_not_run_is_there_and_something_is_checked_instead(entry: NotRun) -> None:
    on_page = [block for block in all_blocks() if block.page == entry.page]
    texts = [text for block in on_page for text in (block.text, *block.commands)]
    assert any(text.startswith(entry.begins) for text in texts), "it is not on the page any more"
    assert entry.why
    assert_is_a_test(entry.instead)


@pytest.mark.parametrize("test", [test for tests in ELSEWHERE.values() for test in tests])
def test_what_is_run_elsewhere_is(test: str) -> None:
    assert_is_a_test(test)


def assert_is_a_test(name: str) -> None:
    path, _, test = name.partition("::")
    source = (ROOT / path).read_text("utf-8")
    assert f"def {test}(" in source if test else "def test_" in source, name
