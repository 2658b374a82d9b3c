"""An image's configuration: entry point, user, health check."""

import json
from dataclasses import dataclass
from typing import Any, cast

from millm import __version__
from tools.image.record import Record


@dataclass(frozen=True)
class ImageConfig:
    """Docker's own keys."""

    attributes: dict[str, Any]

    @property
    def user(self) -> str:
        return str(self.attributes["User"])

    @property
    def variables(self) -> dict[str, str]:
        return dict(entry.split("=", 1) for entry in self.attributes["Env"])

    @property
    def entrypoint(self) -> list[str]:
        return cast(list[str], self.attributes["Entrypoint"])

    @property
    def command(self) -> list[str]:
        return cast(list[str], self.attributes["Cmd"])

    @property
    def health(self) -> list[str]:
        """The words of HEALTHCHECK."""
        return cast(list[str], self.attributes["Healthcheck"]["Test"][1:])

    def as_json(self) -> str:
        return json.dumps(self.attributes)


def check_config(config: ImageConfig, record: Record) -> None:
    attributes = config.attributes
    record.check("user", config.user, "10001:10001")
    record.check("start", [*config.entrypoint, *config.command], ["millm", "serve"])
    record.check("stop signal", attributes["StopSignal"], "SIGTERM")
    record.check("volumes", list(attributes["Volumes"]), ["/data"])
    record.check("ports", list(attributes["ExposedPorts"]), ["8000/tcp"])
    record.check("health is asked by", config.health[0], "python")
    record.check("version label", attributes["Labels"]["org.opencontainers.image.version"], __version__)
