"""Labels beside an SAE."""

from pathlib import Path

import pytest

from millm.errors import InvalidSae
from millm.hub.labels import Label, read_labels


def test_none_where_there_is_no_file(tmp_path: Path) -> None:
    assert read_labels(tmp_path) == []


def test_reads_a_label_a_line(tmp_path: Path) -> None:
    lines = ['{"index": 3, "label": "the sea", "max_act": 4.5, "tokens": ["wave"]}', "", '{"index": 9}']
    (tmp_path / "labels.jsonl").write_text("\n".join(lines))
    assert read_labels(tmp_path) == [Label(3, "the sea", 4.5), Label(9)]


@pytest.mark.parametrize(
    "line", ["{", '{"label": "no index"}', '{"index": "three"}', '{"index": 3, "max_act": "much"}']
)
def test_names_the_line_that_is_no_label(line: str, tmp_path: Path) -> None:
    (tmp_path / "labels.jsonl").write_text(f'{{"index": 1}}\n{line}\n')
    with pytest.raises(InvalidSae, match=r"labels\.jsonl, line 2: "):
        read_labels(tmp_path)
