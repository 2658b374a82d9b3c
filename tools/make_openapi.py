"""Write the OpenAPI document to stdout, without a server; `make page-types` generates the page's types from it."""

import json
import sys
from typing import cast

from millm.api.app import create_app
from millm.monitoring.metrics import Meter
from millm.settings import Settings
from millm.state import DrainGate, State


class _Unserved:
    """The part of a state that creating the application reads."""

    settings = Settings()
    drain_gate = DrainGate()
    meter = Meter()


def document() -> str:
    return json.dumps(create_app(cast(State, _Unserved())).openapi(), sort_keys=True)


if __name__ == "__main__":
    sys.stdout.write(document())
