"""Forks a process per seed on stdin, which changes profiles until it is killed.

python -m tests.profiles.writer DATABASE

Each prints a change before and after it. Forking starts a hundred processes in a second instead of a minute.
"""

import json
import os
import random
import sys
from pathlib import Path

from millm.database import Database
from millm.profiles.schema import Profile
from millm.profiles.store import ProfileStore


def main(path: Path) -> None:
    for seed in sys.stdin:
        writer = os.fork()
        if writer == 0:
            change_for_ever(path, int(seed))
        say("writer", str(writer))
        os.waitpid(writer, 0)
        say("gone")


def change_for_ever(path: Path, seed: int) -> None:
    chance, store = random.Random(seed), ProfileStore(Database(path))
    while True:
        name, text = f"profile {chance.randrange(20)}", str(chance.random())
        is_there = name in {profile.name for profile in store.all()}
        deletes = is_there and chance.random() < 0.3
        say(name, None if deletes else text)
        if deletes:
            store.delete(name)
        elif is_there:
            store.replace(name, Profile(name=name, description=text))
        else:
            store.add(Profile(name=name, description=text))
        say("done")


def say(what: str, text: str | None = None) -> None:
    os.write(1, (json.dumps([what, text]) + "\n").encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
