"""The profiles of a running server, over HTTP: the same questions as `profiles_here.py` answers from the disk."""

from collections.abc import Sequence
from urllib.parse import quote, urlencode

import msgspec

from millm.cli.profile_import import ImportRow, OnConflict, SourceDocument
from millm.cli.remote import RemoteServer
from millm.profiles.schema import Profile, SteeringRequest
from millm.profiles.store import ProfileDetail, ProfileEntry, ProfilePage
from millm.status import ServerStatus, SteeringState

_PAGE_SIZE = 1000


class _ImportRows(msgspec.Struct, frozen=True):
    entries: tuple[ImportRow, ...]


class RemoteProfiles:
    def __init__(self, remote: RemoteServer) -> None:
        self._remote = remote

    def entries(self, search: str) -> Sequence[ProfileEntry]:
        found: list[ProfileEntry] = []
        while True:
            query = urlencode({"search": search, "limit": _PAGE_SIZE, "offset": len(found)})
            page = self._remote.request("GET", f"/api/profiles?{query}", ProfilePage)
            found += page.profiles
            if not page.profiles or len(found) >= page.total:
                return found

    def profile(self, name: str) -> Profile:
        return Profile.model_validate(self._remote.request("GET", _profile_path(name), ProfileDetail).profile)

    def active(self) -> SteeringRequest:
        """What steers the server; nothing is a steering without features."""
        return SteeringRequest.model_validate(
            self._remote.request("GET", "/api/steering", SteeringState).steering or {}
        )

    def use(self, name: str) -> ProfileEntry:
        return self._remote.request("POST", f"{_profile_path(name)}/activate", ProfileEntry)

    def off(self) -> ServerStatus:
        return self._remote.request("POST", "/api/profiles/deactivate", ServerStatus)

    def export(self, name: str, format: str, skip: str | None) -> bytes:
        wanted = {"format": format, **({"skip": skip} if skip else {})}
        return self._remote.get_file(f"{_profile_path(name)}/export?{urlencode(wanted)}")

    def preview_import(self, document: SourceDocument, saes: Sequence[str]) -> Sequence[ImportRow]:
        query = urlencode([("sae", sae) for sae in saes])
        return self._remote.post_document(
            f"/api/profiles/import/preview?{query}", document.content, _ImportRows
        ).entries

    def import_document(
        self, document: SourceDocument, saes: Sequence[str], on_conflict: OnConflict, name: str | None
    ) -> Sequence[ImportRow]:
        said = [("on_conflict", on_conflict), *(("sae", sae) for sae in saes), *([("as", name)] if name else [])]
        return self._remote.post_document(
            f"/api/profiles/import?{urlencode(said)}", document.content, _ImportRows
        ).entries


def _profile_path(name: str) -> str:
    return f"/api/profiles/{quote(name, safe='')}"
