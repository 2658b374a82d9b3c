"""The page's types are those of the server's document."""

import hashlib
from pathlib import Path

from tools.make_openapi import document

TYPES = Path(__file__).parents[1] / "ui" / "src" / "lib" / "schema.d.ts"


def test_the_types_are_fresh() -> None:
    digest = hashlib.sha256(document().encode()).hexdigest()
    head = TYPES.read_text("utf-8")[:300]
    assert f"sha256 {digest}" in head, "run `make page-types`"
