"""State folders that share one cache keep each other's files, whether or not they see each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mullama.errors import Unavailable
from mullama.reconcile import references
from mullama.reconcile.gc import User, declare, referenced, users_of
from mullama.store.index import Fetched, Index
from mullama.store.records import Records, Revision
from mullama.weights.stored import PinnedFile

A, B = (f"sha256:{letter * 64}" for letter in "ab")


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """A cache that two sources were fetched into."""
    made = Index(tmp_path / "cache")
    for source, digest in (("hf:org/a", A), ("hf:org/b", B)):
        file = PinnedFile(name="m.gguf", size=1, digest=digest, role="weights")
        made.remember_fetched(Fetched(source=source, resolved=source, revision=None, files=(file,)))
    return made


def serve(state: Path, index: Index, source: str) -> Path:
    """A state folder whose one server has applied a model of this source."""
    records = Records(state, "server")
    number = (records.last().generation if records.last() else 0) + 1  # type: ignore[union-attr]
    manifest = {"models": {"m": {"from": source}}}
    records.commit(
        Revision(generation=number, revision="", manifest=manifest, when=0, trigger="", by="", origin={}, summary={})
    )
    declare(state, index)
    return state


def test_what_another_state_folder_serves_is_kept(tmp_path: Path, index: Index) -> None:
    first, second = serve(tmp_path / "one", index, "hf:org/a"), serve(tmp_path / "two", index, "hf:org/b")

    assert referenced(first, index, history=False) == {A, B}
    assert referenced(second, index, history=False) == {A, B}


def test_one_that_cannot_be_seen_is_kept_by_its_list(tmp_path: Path, index: Index) -> None:
    first = serve(tmp_path / "one", index, "hf:org/a")
    serve(tmp_path / "two", index, "hf:org/b").rename(tmp_path / "elsewhere")

    assert referenced(first, index, history=False) == {A, B}


def test_one_that_can_be_seen_knows_better_than_its_list(tmp_path: Path, index: Index) -> None:
    first, second = serve(tmp_path / "one", index, "hf:org/a"), tmp_path / "two"
    serve(second, index, "hf:org/none")
    references.declare(second, index.blobs.root, [B])

    assert referenced(first, index, history=False) == {A}


def test_another_folder_at_the_same_path_is_not_taken_for_it(tmp_path: Path, index: Index) -> None:
    """As in a container that shares the cache and has its own folder under the same name."""
    serve(tmp_path / "state", index, "hf:org/a").rename(tmp_path / "other container")
    ours = serve(tmp_path / "state", index, "hf:org/b")

    assert referenced(ours, index, history=False) == {A, B}


def test_a_list_changes_with_what_is_applied_and_is_written_only_then(tmp_path: Path, index: Index) -> None:
    state = serve(tmp_path / "one", index, "hf:org/a")
    (path,) = (index.blobs.root / "references").iterdir()
    before = path.stat().st_mtime_ns, path.stat().st_ino

    declare(state, index)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before

    serve(state, index, "hf:org/b")
    (claim,) = references.others(tmp_path / "nobody", index.blobs.root)
    assert claim.digests == {A, B}
    assert claim.here


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"state": "/x", "digests": ["../x"]}', '{"state": 1, "digests": []}']
)
def test_a_list_that_cannot_be_read_stops_every_deletion(tmp_path: Path, index: Index, text: str) -> None:
    state = serve(tmp_path / "one", index, "hf:org/a")
    (index.blobs.root / "references" / "x.json").write_text(text)

    with pytest.raises(Unavailable, match=r"references/x.json cannot be read"):
        referenced(state, index, history=False)


USES: dict[str, tuple[Any, tuple[User, ...]]] = {
    "a model of a manifest": ({"from": "hf:org/a"}, (User(name="m", declared=True),)),
    "another spelling": ({"from": "hf:org/a@main"}, ()),
    "an adapter": ({"from": "x", "adapters": [{"from": "hf:org/a"}]}, (User(name="m", declared=True),)),
    "another source": ({"from": "hf:org/b"}, ()),
}


@pytest.mark.parametrize(("model", "users"), USES.values(), ids=USES)
def test_the_models_that_use_a_source(tmp_path: Path, index: Index, model: Any, users: tuple[User, ...]) -> None:
    state, entry = tmp_path / "state", index.fetched("hf:org/a")
    assert entry is not None
    records = Records(state, "server")
    manifest = {"models": {"m": model}}
    records.commit(
        Revision(generation=1, revision="", manifest=manifest, when=0, trigger="", by="", origin={}, summary={})
    )

    assert users_of(state, index, entry) == users
    records.save_overlay({"pulled": {"from": "hf:org/a"}})
    assert users_of(state, index, entry) == (*users, User(name="pulled", declared=False))


def test_the_models_of_another_state_folder_count(tmp_path: Path, index: Index) -> None:
    entry = index.fetched("hf:org/b")
    assert entry is not None
    mine, other = tmp_path / "one", serve(tmp_path / "two", index, "hf:org/b")
    assert users_of(mine, index, entry) == (User(name="m", declared=True),)

    other.rename(tmp_path / "elsewhere")
    assert users_of(mine, index, entry) == (User(name=f"the state folder {other}", declared=True),)
