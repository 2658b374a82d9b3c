"""A process that downloads as a server does, to be killed: `python -m tests.hub.downloading DATABASE NAME`.

Says `ready` when it has cleaned up, goes on for a line of input, and says how it ended.
"""

import asyncio
import sys
from pathlib import Path

from millm.hub.downloads import Downloads, asked_for
from millm.settings import Settings
from millm.storage import Database


async def main(database: str, name: str) -> None:
    downloads = Downloads(Database(Path(database)), Settings.load(download_reserve_bytes=0), lambda job: None)
    say("ready")
    sys.stdin.readline()
    job = await downloads.start(asked_for(name, "model"))
    say((await downloads.wait(job.id)).state)
    await downloads.close()


def say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


asyncio.run(main(*sys.argv[1:]))
