"""What an image says of itself: how it is started, as whom, and how its health is asked for."""

import json
from dataclasses import dataclass
from typing import Any, cast

from millm import __version__
from tools.image.record import Record


@dataclass(frozen=True)
class ImageConfig:
    """Docker's own keys."""

    told: dict[str, Any]

    @property
    def user(self) -> str:
        return str(self.told["User"])

    @property
    def variables(self) -> dict[str, str]:
        return dict(entry.split("=", 1) for entry in self.told["Env"])

    @property
    def entrypoint(self) -> list[str]:
        return cast(list[str], self.told["Entrypoint"])

    @property
    def command(self) -> list[str]:
        return cast(list[str], self.told["Cmd"])

    @property
    def health(self) -> list[str]:
        """The words of HEALTHCHECK."""
        return cast(list[str], self.told["Healthcheck"]["Test"][1:])

    def as_json(self) -> str:
        return json.dumps(self.told)


def check_config(config: ImageConfig, record: Record) -> None:
    told = config.told
    record.check("user", config.user, "10001:10001")
    record.check("start", [*config.entrypoint, *config.command], ["millm", "serve"])
    record.check("stop signal", told["StopSignal"], "SIGTERM")
    record.check("volumes", list(told["Volumes"]), ["/data"])
    record.check("ports", list(told["ExposedPorts"]), ["8000/tcp"])
    record.check("health is asked by", config.health[0], "python")
    record.check("version label", told["Labels"]["org.opencontainers.image.version"], __version__)
