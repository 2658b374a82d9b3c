"""The real application on a real socket, without a model: enough for all that happens before one is asked."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import uvicorn
from fastapi import WebSocket

from millm.api import h11_protocol
from millm.api.app import create_app
from millm.api.dependencies import requires
from tests.fixtures.bare import bare_state

Walled = Callable[..., str]


@pytest.fixture(scope="session")
def walled() -> Iterator[Walled]:
    """`walled(read_timeout=1, …)` → the URL of a server with these settings and a websocket at `/echo`."""
    urls: dict[str, str] = {}
    with ExitStack() as stack:

        def url(**settings: Any) -> str:
            name = repr(settings)
            if name not in urls:
                urls[name] = stack.enter_context(_serving(**settings))
            return urls[name]

        yield url


@contextmanager
def _serving(**settings: Any) -> Iterator[str]:
    state = bare_state(**settings)
    app = create_app(state)
    app.add_api_websocket_route("/echo", _echo, dependencies=[requires("monitor")])
    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    server = uvicorn.Server(h11_protocol.uvicorn_config(app, state.settings, stop_seconds=1))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()


async def _echo(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(await websocket.receive_text())
    await websocket.close()
