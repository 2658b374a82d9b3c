"""Start and check the container: run by `tools.image` in its own namespaces, with ROOT HOME and the config on stdin.

`docker run --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges --network none`, by hand: mounts
and `setpriv` replace Docker.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tools.image.asking import ask_for_steering, ask_the_door, check_the_process
from tools.image.config import ImageConfig
from tools.image.record import Record
from tools.image.rooms import Container

URL = "http://127.0.0.1:8000"
AS_IN_COMPOSE = {"MILLM_ALLOWED_HOSTS": "millm"}
START_SECONDS = 900
"""Ten on a machine that does nothing else."""
STOP_SECONDS = 45


def main() -> None:
    root, home = map(Path, sys.argv[1:])
    config = ImageConfig(json.load(sys.stdin))
    record = Record()
    container = Container(root, config)
    container.close(home)
    record.check("its root cannot be written, by root either", container.refuses_a_file_at("/opt/venv/new"), True)
    record.check("health before it runs", container.run(config.health).returncode, 1)
    record.add("millm demo, /data empty, no network:")
    with _running(container, ["demo"], record) as process:
        check_the_process(process, record)
        ask_the_door(URL, record)
        ask_for_steering(URL, record)
    record.add("millm serve, on the same /data:")
    with _running(container, config.command, record):
        ask_for_steering(URL, record)


@contextmanager
def _running(container: Container, command: list[str], record: Record) -> "Iterator[subprocess.Popen[bytes]]":
    """From ready to a clean stop."""
    started = time.monotonic()
    process = container.start(command, AS_IN_COMPOSE)
    try:
        for address in ("healthz", "readyz"):
            _wait_for(f"{URL}/{address}", process)
            record.add(f"{time.monotonic() - started:6.1f} s  until /{address} answered 200")
            if address == "healthz":
                record.check("health", container.run(container.config.health).returncode, 0)
        yield process
        _stop(process, record)
    finally:
        process.kill()


def _wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + START_SECONDS
    with httpx.Client(timeout=5) as http:  # one for all: making it takes more of the processor than asking
        while time.monotonic() < until and process.poll() is None:
            try:
                if http.get(url).status_code == 200:
                    return
            except httpx.TransportError:
                pass  # it does not listen yet
            time.sleep(0.2)
    raise SystemExit(f"{url.rpartition('/')[2]} did not come; the process: {process.poll()}")


def _stop(process: "subprocess.Popen[bytes]", record: Record) -> None:
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    record.check("exit code after SIGTERM", process.wait(STOP_SECONDS), 0)
    record.add(f"{time.monotonic() - started:6.1f} s  until it had stopped")


if __name__ == "__main__":
    main()
