"""The page under `/ui/`: its files as they were built, and `index.html` for every address that is one of its pages."""

import mimetypes
import secrets
from pathlib import Path

from fastapi import APIRouter, Response
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse

from millm.errors import NotFound

WEB_FOLDER = Path(__file__).parent / "web"
"""Where the build puts it; absent where that was left out."""

_IMMUTABLE_CACHE = "public, max-age=31536000, immutable"
_NONCE_META = '<meta name="csp-nonce" content="'
_WEB_PAGE_CSP = (
    "default-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src 'self' data:; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)
_NOT_BUILT_HTML = """<!doctype html><html lang="en"><meta charset="utf-8"><title>miLLM</title>
<h1>The page is not built</h1>
<p>The server answers all the same. To build the page: <code>pip install -e .</code>, without MILLM_SKIP_UI.</p></html>
"""


class WebPage:
    """What a folder held when the server started: nothing else is ever read."""

    def __init__(self, web: Path = WEB_FOLDER) -> None:
        self._files = {file.relative_to(web).as_posix(): file for file in web.rglob("*") if file.is_file()}
        index = self._files.get("index.html")
        self._index = index.read_text("utf-8") if index else None
        self.router = APIRouter(prefix="/ui", include_in_schema=False)
        self.router.add_api_route("", self.redirect_to_page, methods=["GET", "HEAD"])
        self.router.add_api_route("/{path:path}", self.serve_path, methods=["GET", "HEAD"])

    async def redirect_to_page(self) -> RedirectResponse:
        return RedirectResponse("ui/")

    async def serve_path(self, path: str) -> Response:
        """Files have a dot in their last part, pages have none. Raises NotFound."""
        if "." not in path.rpartition("/")[2]:
            return self._page()
        file = self._files.get(path)
        if file is None:
            raise NotFound("The page has no such file; it may be of another version: load it again.")
        headers = {"Cache-Control": _IMMUTABLE_CACHE if path.startswith("assets/") else "no-cache"}
        return FileResponse(file, media_type=mimetypes.guess_type(path)[0], headers=headers)

    def _page(self) -> HTMLResponse:
        """With a nonce of its own each time: no style but the page's is let in."""
        if self._index is None:
            return HTMLResponse(_NOT_BUILT_HTML, 503, headers={"Cache-Control": "no-cache"})
        nonce = secrets.token_urlsafe(16)
        headers = {"Cache-Control": "no-cache", "Content-Security-Policy": _WEB_PAGE_CSP.format(nonce=nonce)}
        return HTMLResponse(self._index.replace(_NONCE_META, _NONCE_META + nonce), headers=headers)
