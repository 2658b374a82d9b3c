"""The store compared with a dictionary, and the import of profile files."""

import asyncio
import json
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from millm.api.app import create_app
from millm.database import Database
from millm.errors import InvalidProfile, ProfileNameTaken, ProfileNotFound
from millm.profiles.schema import MAX_NAME_LENGTH, Profile, name_key, validate_name
from millm.profiles.store import ProfileStore
from tests.fixtures.bare import bare_state

NAMES = ["a", "A", "é", "E\u0301", "ß", "SS", "日本", "🎉", "a (2)", "x" * MAX_NAME_LENGTH, "X" * (MAX_NAME_LENGTH - 1)]


class Shelf(RuleBasedStateMachine):
    """Compares the store with a dictionary from keys to documents."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "millm.db"
        self.open()
        self.model: dict[str, Profile] = {}

    def open(self) -> None:
        self.database = Database(self.path)
        self.store = ProfileStore(self.database)

    def teardown(self) -> None:
        self.database.close()
        self.folder.cleanup()

    @rule(name=st.sampled_from(NAMES), text=st.text("ab", max_size=2))
    def add(self, name: str, text: str) -> None:
        profile = Profile(name=name, description=text)
        if name_key(name) in self.model:
            with pytest.raises(ProfileNameTaken):
                self.store.add(profile)
        else:
            self.store.add(profile)
            self.model[name_key(name)] = profile

    @rule(name=st.sampled_from(NAMES), other=st.sampled_from(NAMES), text=st.text("ab", max_size=2))
    def replace(self, name: str, other: str, text: str) -> None:
        profile = Profile(name=other, description=text)
        if name_key(name) not in self.model:
            with pytest.raises(ProfileNotFound):
                self.store.replace(name, profile)
        elif name_key(other) in self.model and name_key(other) != name_key(name):
            with pytest.raises(ProfileNameTaken):
                self.store.replace(name, profile)
        else:
            had = self.store.find_stored(name)
            assert self.store.replace(name, profile).id == had.id
            del self.model[name_key(name)]
            self.model[name_key(other)] = profile

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        if name_key(name) in self.model:
            self.store.delete(name)
            del self.model[name_key(name)]
        else:
            with pytest.raises(ProfileNotFound):
                self.store.delete(name)

    @rule(name=st.sampled_from(NAMES))
    def free(self, name: str) -> None:
        name = validate_name(name)
        free = self.store.free_name(name)
        assert validate_name(free) == free
        assert name_key(free) not in self.model
        assert (free == name) == (name_key(name) not in self.model)

    @rule()
    def restart(self) -> None:
        self.database.close()
        self.open()

    @invariant()
    def is_the_same(self) -> None:
        wanted = [profile for _, profile in sorted(self.model.items())]
        assert list(self.store.all()) == wanted
        page, total = self.store.page(limit=2, offset=1)
        assert ([one.profile for one in page], total) == (wanted[1:3], len(wanted))
        searched, _ = self.store.page(search="B")
        assert {one.profile.name for one in searched} == {
            one.name for one in wanted if "b" in name_key(one.description) or "b" in name_key(one.name)
        }
        for name in NAMES:
            found = self.model.get(name_key(name))
            if found:
                assert self.store.find(name) == found


def test_store_matches_a_dictionary_across_restarts() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Shelf,
        settings=settings(
            max_examples=10, stateful_step_count=20, deadline=None, database=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with closing(Database(tmp_path / "millm.db")) as database:
        yield ProfileStore(database)


def file(folder: Path, strength: float = 1.0, name: str = "mine") -> Path:
    path = folder / "mine.json"
    path.write_text(json.dumps({"name": name, "features": [{"index": 1, "strength": strength}]}))
    return path


def strength(store: ProfileStore) -> float:
    return store.find("mine").features[0].strength


def test_a_file_is_imported_once(store: ProfileStore, tmp_path: Path) -> None:
    assert store.import_file(file(tmp_path))
    store.delete("mine")
    assert store.import_file(file(tmp_path)) is None
    assert len(store) == 0
    laid_out_otherwise = tmp_path / "other.json"
    laid_out_otherwise.write_text(json.dumps(json.loads(file(tmp_path).read_text()), indent=4))
    assert store.import_file(laid_out_otherwise) is None


def test_a_changed_file_replaces_only_its_unedited_import(store: ProfileStore, tmp_path: Path) -> None:
    store.import_file(file(tmp_path, 1.0))
    taken = store.import_file(file(tmp_path, 2.0))
    assert (taken, strength(store), len(store)) == (store.find("mine"), 2.0, 1)
    store.replace("mine", store.find("mine").model_copy(update={"description": "edited here"}))
    assert store.import_file(file(tmp_path, 3.0)) is None
    assert strength(store) == 2.0
    store.delete("mine")
    assert store.import_file(file(tmp_path, 3.0))


def test_import_or_find_always_returns_the_named_profile(store: ProfileStore, tmp_path: Path) -> None:
    assert store.import_or_find(file(tmp_path)).name == "mine"
    store.delete("mine")
    assert store.import_or_find(file(tmp_path)).name == "mine"
    changed = store.replace("mine", store.find("mine").model_copy(update={"description": "edited here"}))
    assert store.import_or_find(file(tmp_path)) == changed.profile
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(InvalidProfile, match=r"^mine\.json: name"):
        store.import_or_find(tmp_path / "mine.json")


def test_not_found_error_lists_some_names(store: ProfileStore) -> None:
    for number in range(25):
        store.add(Profile(name=f"profile {number:02}"))
    with pytest.raises(ProfileNotFound, match=r"profile 00, .*profile 19, 5 more$"):
        store.find("none")


def test_ten_thousand_profiles_are_listed_quickly(tmp_path: Path) -> None:
    """A page in less than 0.1 s, and a file of less than 50 MB."""
    state = bare_state(tmp_path)
    rows = []
    for number in range(10_000):
        name = f"profile {number:05}"
        profile = Profile.model_validate(
            {"name": name, "description": "What it does.", "features": [{"index": n, "strength": 1} for n in range(5)]}
        )
        rows.append((name, name, profile.model_dump_json(exclude_none=True)))
    state.hub.database.write(
        lambda connection: connection.executemany(
            "INSERT INTO profiles (key, name, body, created, updated) VALUES (?, ?, ?, 0, 0)", rows
        )
    )
    state.profiles = ProfileStore(state.hub.database)
    assert state.hub.home.database.stat().st_size < 50_000_000
    took = []

    async def ask() -> None:
        transport = httpx.ASGITransport(app=create_app(state))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            for query in ({"offset": 9_900}, {"search": "99"}, {}, {"search": "WHAT"}, {"offset": 5_000}):
                begun = time.process_time()
                answer = await client.get("/api/profiles", params=query)
                took.append(time.process_time() - begun)
                assert len(answer.json()["profiles"]) == 100

    asyncio.run(ask())
    assert sorted(took)[2] < 0.1, took
