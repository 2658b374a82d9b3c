"""The page at `/`: what is loaded, which profiles there are, and how to send the first steered request."""

import base64
import hashlib
from importlib.resources import files

from fastapi import APIRouter, Request
from jinja2 import Environment
from starlette.responses import HTMLResponse

from millm.auth import split_keys
from millm.lifecycle.selection import model_cards
from millm.state import State

start_page_router = APIRouter()

_START_PAGE_SOURCE = files("millm").joinpath("startpage.html").read_text("utf-8")
_START_PAGE_TEMPLATE = Environment(autoescape=True).from_string(_START_PAGE_SOURCE)


def _start_page_csp() -> str:
    """Nothing but the page's own style, which is known by its hash."""
    style = _START_PAGE_SOURCE.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; frame-ancestors 'none'"


_START_PAGE_HEADERS = {"Content-Security-Policy": _start_page_csp()}


@start_page_router.get("/", response_class=HTMLResponse, include_in_schema=False)
async def start_page(request: Request) -> HTMLResponse:
    state: State = request.app.state.millm
    page = _START_PAGE_TEMPLATE.render(
        base_url=str(request.base_url),
        model=state.model,
        saes=list(state.saes.values()),
        cards=[card for card in model_cards(state) if card.profile],
        active=state.active,
        has_key=bool(split_keys(state.settings.api_key)),
    )
    return HTMLResponse(page, headers=_START_PAGE_HEADERS)
