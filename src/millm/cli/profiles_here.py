"""The profiles on this disk, without a server: the same questions as `profiles_remote.py` asks one over HTTP.

What writes holds the home, so that no server starts meanwhile. Only miLLM's own files are understood here.
"""

from collections.abc import Sequence

from millm.cli.profile_import import ImportAction, ImportRow, OnConflict, SourceDocument
from millm.database import Database
from millm.errors import CannotStart, InvalidImport
from millm.hub.home import Home
from millm.profiles.schema import Profile, name_key
from millm.profiles.store import ProfileEntry, ProfileStore, parse_profile, profile_entry
from millm.settings import Settings

NO_SERVER_REASON = "no server runs"
_NO_LIMIT = 10**9


class LocalProfiles:
    def __init__(self, settings: Settings) -> None:
        self._home = Home(settings.home_folder)
        self._home.create()
        self._store = ProfileStore(Database(self._home.database))

    def entries(self, search: str) -> Sequence[ProfileEntry]:
        found, _ = self._store.page(search=search, limit=_NO_LIMIT)
        return [
            profile_entry(stored, is_active=False, incompatibility=NO_SERVER_REASON, model=None) for stored in found
        ]

    def profile(self, name: str) -> Profile:
        return self._store.find(name)

    def export(self, name: str, format: str, skip: str | None) -> bytes:
        if format != "millm" or skip:
            raise CannotStart("--format and --skip need a running server; start one, or leave them out")
        return self._store.find(name).model_dump_json(indent=2, exclude_none=True).encode() + b"\n"

    def preview_import(self, document: SourceDocument, saes: Sequence[str]) -> Sequence[ImportRow]:
        profile = self._parse_document(document, saes)
        taken = name_key(profile.name) in {name_key(one.name) for one in self._store.all()}
        return [ImportRow(path="$", name=profile.name, notes=("the name is taken",) if taken else ())]

    def import_document(
        self, document: SourceDocument, saes: Sequence[str], on_conflict: OnConflict, name: str | None
    ) -> Sequence[ImportRow]:
        profile = self._parse_document(document, saes)
        if name is not None:
            profile = Profile.model_validate({**profile.model_dump(), "name": name})
        with self._home.lock():
            return [self._store_profile(profile, on_conflict)]

    def _parse_document(self, document: SourceDocument, saes: Sequence[str]) -> Profile:
        if saes or not document.content.lstrip().startswith(b"{"):
            raise InvalidImport(
                f"{document.name}: only miLLM's own profiles can be imported without a server; start one, and try again"
            )
        return parse_profile(document.content, document.name)

    def _store_profile(self, profile: Profile, on_conflict: OnConflict) -> ImportRow:
        is_taken = name_key(profile.name) in {name_key(one.name) for one in self._store.all()}
        did: ImportAction = "added"
        if is_taken and on_conflict == "skip":
            did = "skipped"
        elif is_taken and on_conflict == "replace":
            did, _ = "replaced", self._store.replace(profile.name, profile)
        elif is_taken and on_conflict == "rename":
            profile = profile.model_copy(update={"name": self._store.free_name(profile.name)})
            self._store.add(profile)
        else:
            self._store.add(profile)
        return ImportRow(path="$", name=profile.name, did=did)
