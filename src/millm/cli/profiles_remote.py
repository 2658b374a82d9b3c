"""The profiles of a running server, over HTTP: the same questions as `profiles_here.py` answers from the disk."""

from collections.abc import Sequence
from urllib.parse import quote, urlencode

import msgspec

from millm.cli.profile_import import Document, OnConflict, Outcome
from millm.cli.remote import Remote
from millm.profiles.contract import Profile, SteeringRequest
from millm.profiles.entry import ProfileEntry, ProfilePage, ProfileTold
from millm.status import ServerStatus, SteeringState

_PAGE = 1000


class _Outcomes(msgspec.Struct, frozen=True):
    entries: tuple[Outcome, ...]


class RemoteProfiles:
    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    def entries(self, search: str) -> Sequence[ProfileEntry]:
        found: list[ProfileEntry] = []
        while True:
            query = urlencode({"search": search, "limit": _PAGE, "offset": len(found)})
            page = self._remote.ask("GET", f"/api/profiles?{query}", ProfilePage)
            found += page.profiles
            if not page.profiles or len(found) >= page.total:
                return found

    def profile(self, name: str) -> Profile:
        return Profile.model_validate(self._remote.ask("GET", _address(name), ProfileTold).profile)

    def active(self) -> SteeringRequest:
        """What steers the server; nothing is a steering without features."""
        return SteeringRequest.model_validate(self._remote.ask("GET", "/api/steering", SteeringState).steering or {})

    def use(self, name: str) -> ProfileEntry:
        return self._remote.ask("POST", f"{_address(name)}/activate", ProfileEntry)

    def off(self) -> ServerStatus:
        return self._remote.ask("POST", "/api/profiles/deactivate", ServerStatus)

    def export(self, name: str, format: str, skip: str | None) -> bytes:
        wanted = {"format": format, **({"skip": skip} if skip else {})}
        return self._remote.fetch(f"{_address(name)}/export?{urlencode(wanted)}")

    def preview(self, document: Document, saes: Sequence[str]) -> Sequence[Outcome]:
        query = urlencode([("sae", sae) for sae in saes])
        return self._remote.send(f"/api/profiles/import/preview?{query}", document.content, _Outcomes).entries

    def take(
        self, document: Document, saes: Sequence[str], on_conflict: OnConflict, name: str | None
    ) -> Sequence[Outcome]:
        said = [("on_conflict", on_conflict), *(("sae", sae) for sae in saes), *([("as", name)] if name else [])]
        return self._remote.send(f"/api/profiles/import?{urlencode(said)}", document.content, _Outcomes).entries


def _address(name: str) -> str:
    return f"/api/profiles/{quote(name, safe='')}"
