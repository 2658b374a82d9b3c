"""A home folder and a fake hub with tiny repositories, and `millm` commands on them."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cli.terminal import TIMEOUT_SECONDS, CompletedCommand, free_port, millm, ready_url, started
from tests.fixtures.fakehub import FakeHub
from tests.fixtures.process import environment
from tests.fixtures.screen import Terminal, on_screen


@dataclass(frozen=True)
class LibraryHome:
    """`port`: of a server, if one runs."""

    hub: FakeHub
    folder: Path
    port: str

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def variables(self) -> dict[str, str]:
        return {**self.hub.environment(self.folder / "cache"), "MILLM_PORT": self.port, "MILLM_DEVICE": "cpu"}

    def millm(self, *arguments: str, stdin: str = "", **variables: str) -> CompletedCommand:
        return millm(*arguments, home=self.home, stdin=stdin, **{**self.variables, **variables})

    def on_screen(self, *arguments: str, **variables: str) -> AbstractContextManager[Terminal]:
        return on_screen(*arguments, variables={**environment(self.home), **self.variables, **variables})

    @contextmanager
    def served(self, **variables: str) -> Iterator[None]:
        """Run a server without a model."""
        with started("serve", home=self.home, **{**self.variables, **variables}) as process:
            ready_url(process)
            yield
            process.terminate()
            process.wait(TIMEOUT_SECONDS)


def library_home(hub: FakeHub, folder: Path) -> LibraryHome:
    return LibraryHome(hub, folder, free_port())
