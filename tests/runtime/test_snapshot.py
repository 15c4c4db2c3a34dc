"""The names of a snapshot: those of models, and those that routes add."""

from __future__ import annotations

from mullama.plan.make import EMPTY
from mullama.runtime.base import Access
from mullama.runtime.snapshot import Snapshot


def test_the_own_name_of_a_model_is_no_alias_in_any_spelling() -> None:
    names = {"a": "a:latest", "b": "B", "front": "a:latest", "far": "m@peer"}
    access = Access(manifest=EMPTY, keys=(), generation=1)
    snapshot = Snapshot(generation=1, revision="r", manifest=EMPTY, access=access, names=names)
    assert snapshot.aliases == {"front": "a:latest", "far": "m@peer"}
    assert snapshot.context_size("a") == 0, "the name of a model that is not here"
