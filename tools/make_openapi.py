"""Writes the OpenAPI document to stdout, without a server: `make page-types` makes the page's types of it."""

import json
import sys
from typing import cast

from millm.api.app import create_app
from millm.monitoring.metrics import Meter
from millm.settings import Settings
from millm.state import DrainGate, State


class _Unserved:
    """What making the application reads of a state."""

    settings = Settings()
    drain_gate = DrainGate()
    meter = Meter()


def document() -> str:
    return json.dumps(create_app(cast(State, _Unserved())).openapi(), sort_keys=True)


if __name__ == "__main__":
    sys.stdout.write(document())
