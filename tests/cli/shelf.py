"""A hub with tiny repositories, a home of one's own, and the commands of the library over them."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cli.terminal import PATIENCE, Ran, millm, started
from tests.cli.test_stopping import free_port, ready_url
from tests.fixtures.fakehub import FakeHub
from tests.fixtures.process import environment
from tests.fixtures.screen import Terminal, on_screen


@dataclass(frozen=True)
class Shelf:
    """`port`: where a server is, or none."""

    hub: FakeHub
    folder: Path
    port: str

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def variables(self) -> dict[str, str]:
        return {**self.hub.environment(self.folder / "cache"), "MILLM_PORT": self.port, "MILLM_DEVICE": "cpu"}

    def millm(self, *arguments: str, stdin: str = "", **variables: str) -> Ran:
        return millm(*arguments, home=self.home, stdin=stdin, **{**self.variables, **variables})

    def on_screen(self, *arguments: str, **variables: str) -> AbstractContextManager[Terminal]:
        return on_screen(*arguments, variables={**environment(self.home), **self.variables, **variables})

    @contextmanager
    def served(self, **variables: str) -> Iterator[None]:
        """By a server that has nothing loaded yet."""
        with started("serve", home=self.home, **{**self.variables, **variables}) as process:
            ready_url(process)
            yield
            process.terminate()
            process.wait(PATIENCE)


def shelf(hub: FakeHub, folder: Path) -> Shelf:
    return Shelf(hub, folder, free_port())
