"""The page of `millm demo`: the first minute of a user, and forbidden behaviour of pages."""

from collections.abc import Callable

import pytest

from tests.fixtures.process import Server
from tests.page.browser import journey

Recorder = Callable[[str, object], None]

pytestmark = [pytest.mark.page, pytest.mark.demo]


@pytest.mark.parametrize(
    "name",
    [
        "first-answer",
        "tabs",
        "keyboard",
        "hostile",
        "live",
        "monitor",
        "features",
        "profiles",
        "server",
        "palette",
        "every-page",
        "states",
    ],
)
def test_the_page_of_the_demo(
    demo_server: Server, name: str, record_property: Recorder, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pictures = tmp_path_factory.getbasetemp()
    record_property("told", journey(name, demo_server.url, pictures=pictures))
