"""Profile names: any script, no invisible characters, unique up to case and composition."""

import pytest
from pydantic import TypeAdapter, ValidationError

from millm.profiles.schema import ProfileName, name_key

NAME: TypeAdapter[str] = TypeAdapter(ProfileName)


@pytest.mark.parametrize(
    "name", ["yelling", "Yelling Demo", "50 %", "Ärger", "怒鳴る", "صراخ", "🔥👩‍🚀", "a:b", "x" * 128, "1..2"]
)
def test_names_of_any_script_are_valid(name: str) -> None:
    assert NAME.validate_python(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        " a",
        "a ",
        "a/b",
        "a\\b",
        ".",
        "..",
        "a\nb",
        "a\0b",
        "a\u202eb",
        "\u200eab",
        "a\u2028b",
        "x" * 129,
        "\ud800",
        7,
    ],
)
def test_invalid_names_are_rejected(name: object) -> None:
    with pytest.raises(ValidationError):
        NAME.validate_python(name)


def test_equivalent_spellings_share_a_key() -> None:
    assert NAME.validate_python("A\u0308rger") == "Ärger"
    assert name_key("A\u0308RGER") == name_key("ärger") == name_key("Ärger")
    assert name_key("STRASSE") == name_key("straße")
    assert name_key("a") != name_key("á")
