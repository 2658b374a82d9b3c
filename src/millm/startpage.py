"""The page at `/`: what is loaded, which profiles there are, and how to send the first steered request."""

from importlib.resources import files

from fastapi import APIRouter, Request
from jinja2 import Environment
from starlette.responses import HTMLResponse

from millm.profiles.selection import model_cards
from millm.state import State

router = APIRouter()

_TEMPLATE = Environment(autoescape=True).from_string(files("millm").joinpath("startpage.html").read_text("utf-8"))
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
async def start_page(request: Request) -> HTMLResponse:
    state: State = request.app.state.millm
    page = _TEMPLATE.render(
        base_url=str(request.base_url),
        model=state.model,
        saes=list(state.saes.values()),
        cards=[card for card in model_cards(state) if card.profile],
        active=state.active,
    )
    return HTMLResponse(page, headers=_HEADERS)
