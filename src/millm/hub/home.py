"""The home folder: where things are kept, and one server at a time in it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from millm.errors import CannotStart, HomeLocked


class Home:
    """Layout of `MILLM_HOME`; folders are made when they are first needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def model_links(self) -> Path:
        """Links to model folders that the user imported, by the names they have in the library."""
        return self.folder / "models"

    @property
    def sae_links(self) -> Path:
        """The same for SAEs."""
        return self.folder / "sae-folders"

    @property
    def canonical_saes(self) -> Path:
        """Memory-mapped canonical copies of SAEs."""
        return self.folder / "saes"

    @property
    def database(self) -> Path:
        """What was acknowledged: `storage.py`."""
        return self.folder / "millm.db"

    @property
    def converted_saes(self) -> Path:
        """Copies of other libraries' SAEs in a layout that is read."""
        return self.folder / "converted"

    @property
    def profiles(self) -> Path:
        """The user's own profiles, one JSON file each."""
        return self.folder / "profiles"

    def create(self) -> None:
        """Raises CannotStart if the folder cannot be made or written."""
        try:
            for folder in (self.canonical_saes, self.profiles):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotStart(
                f"MILLM_HOME={self.folder} cannot be used ({error.strerror}); set MILLM_HOME to a folder you can write"
            ) from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold this home for one server. Raises HomeLocked, naming the process that has it."""
        with (self.folder / "server.lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                owner = file.read().strip() or "unknown"
                raise HomeLocked(
                    f"another miLLM server (process {owner}) uses {self.folder}; stop it, or set MILLM_HOME to"
                    " another folder"
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield
