"""A model as the options of `load` and `estimate` ask for it; what they leave out is the server's own setting."""

import msgspec

from millm.settings import Settings
from millm.status import ModelSpec


def parse_model_options(id: str, **options: str | int | None) -> ModelSpec:
    """`options` as the settings and `WantedModel` name them. Raises CannotStart naming the one that is not allowed."""
    given = {name: value for name, value in options.items() if value is not None}
    Settings.load(**{name: value for name, value in given.items() if name in Settings.model_fields})
    return msgspec.convert({"id": id, **given}, ModelSpec)
