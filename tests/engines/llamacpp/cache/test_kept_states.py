"""States of conversations on disk and in memory: for their own key only, bounded and checked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mullama.engines.base import Adapter, ContextOptions, Prefix
from mullama.engines.llamacpp.engine import LlamaEngine
from mullama.struct import replace
from tests.engines.engine_driver import Result, answer, user
from tests.engines.near_tie import ALTERNATIVES, assert_same_answers

TALK = user("Please tell me about the sea and about its many ships. " * 8)


@pytest.fixture
def engine(tiny_path: str, load: Callable[..., LlamaEngine], memory: str) -> LlamaEngine:
    return load("llamacpp", tiny_path)


@pytest.fixture
def options(tmp_path: Path) -> ContextOptions:
    return ContextOptions(
        size=512, parallel=2, threads=1, state_dir=str(tmp_path), state_key="k", keep_bytes=64 * 2**20
    )


def _again(engine: LlamaEngine, options: ContextOptions) -> None:
    """Unload the context, and load it."""
    engine.close_context("main")
    engine.open_context("main", options)


def _ask(engine: LlamaEngine, owner: str = "ann", **more: Any) -> Result:
    return answer(engine, TALK, owner=owner, logprobs=ALTERNATIVES, **more)


def _cached(result: Result) -> int:
    assert result.ended is not None
    return result.ended.cached_tokens


def test_a_conversation_goes_on_after_its_context_was_closed(engine: LlamaEngine, options: ContextOptions) -> None:
    engine.open_context("main", options)
    first = _ask(engine)
    assert first.ended is not None
    for _ in range(2):
        _again(engine, options)
        second = _ask(engine)
        assert _cached(second) == first.ended.prompt_tokens - 1
        assert_same_answers(engine.facts, [second], [first])


def test_no_state_is_kept_once_the_weights_changed_on_disk(
    load: Callable[..., LlamaEngine], options: ContextOptions, tiny_path: str, tmp_path: Path
) -> None:
    """The mapped memory has the bytes of the new file, so that its states are not those of the key."""
    weights = Path(shutil.copy(tiny_path, tmp_path / "weights.gguf"))
    engine = load("llamacpp", str(weights))
    engine.open_context("main", options)
    _ask(engine)
    status = weights.stat()
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    _again(engine, replace(options, prefixes=(Prefix(text=user("Good day. " * 64)),)))
    assert _cached(_ask(engine)) == 0
    assert not list(tmp_path.rglob("*.prefix"))


def test_a_conversation_from_disk_is_private_to_its_key(
    engine: LlamaEngine, options: ContextOptions, tmp_path: Path
) -> None:
    engine.open_context("main", options)
    _ask(engine)
    _again(engine, options)
    assert _cached(_ask(engine, "bob")) == 0
    (file, *_) = (tmp_path / "conversations").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert b"ann" not in file.read_bytes()[:200]


def test_a_conversation_that_another_key_continued_is_kept_for_both(
    engine: LlamaEngine, options: ContextOptions
) -> None:
    """Both are in one sequence: the state of the shorter one must not cost the longer one."""
    engine.open_context("main", options)
    first = _ask(engine, want_tokens=True)
    assert first.ended is not None
    more = (*first.ended.tokens, *engine.tokenize(user("And then?"), add_special=False, parse_special=True))
    longer = answer(engine, more, owner="bob")
    assert longer.ended is not None
    _again(engine, options)
    assert _cached(answer(engine, more, owner="bob")) == longer.ended.prompt_tokens - 1
    _again(engine, options)
    assert _cached(_ask(engine)) == first.ended.prompt_tokens - 1


def test_a_longer_turn_replaces_the_earlier_one_on_disk(
    engine: LlamaEngine, options: ContextOptions, tmp_path: Path
) -> None:
    engine.open_context("main", options)
    first = _ask(engine, want_tokens=True)
    _again(engine, options)
    (before,) = (tmp_path / "conversations").iterdir()
    assert first.ended is not None
    more = engine.tokenize(TALK, add_special=False, parse_special=True)
    second = answer(engine, (*first.ended.tokens, *more), owner="ann")
    assert _cached(second) >= len(first.ended.tokens) - 1
    _again(engine, options)
    (after,) = (tmp_path / "conversations").iterdir()
    assert after.name != before.name


@pytest.mark.parametrize("keep", [len, lambda data: len(data) // 2, lambda data: 10], ids=["changed", "cut", "header"])
def test_a_file_that_fails_its_check_is_computed_again(
    engine: LlamaEngine, options: ContextOptions, tmp_path: Path, keep: Callable[[bytes], int]
) -> None:
    engine.open_context("main", options)
    first = _ask(engine)
    engine.close_context("main")
    (file,) = (tmp_path / "conversations").iterdir()
    data = file.read_bytes()
    file.write_bytes(data[: keep(data) - 1] + b"?")
    engine.open_context("main", options)
    second = _ask(engine)
    assert _cached(second) == 0
    assert_same_answers(engine.facts, [second], [first])


@pytest.mark.parametrize(
    "change", [{"keep_bytes": 0}, {"state_key": "other weights"}, {"kv_k": "f32"}], ids=["off", "weights", "shape"]
)
def test_a_state_of_another_context_is_not_used(
    engine: LlamaEngine, options: ContextOptions, change: dict[str, Any]
) -> None:
    engine.open_context("main", options)
    _ask(engine)
    _again(engine, replace(options, **change))
    assert _cached(_ask(engine)) == 0


def test_a_state_belongs_to_its_adapter_scales(
    engine: LlamaEngine, options: ContextOptions, random_model: Callable[[str], str]
) -> None:
    options = replace(options, adapters=(Adapter(path=random_model("adapter"), scale=1.0),))
    engine.open_context("main", options)
    _ask(engine)
    _again(engine, options)
    assert _cached(_ask(engine, scales=(0.5,))) == 0
    assert _cached(_ask(engine)) > 64


@pytest.fixture
def in_ram(options: ContextOptions, tmp_path: Path) -> ContextOptions:
    return replace(options, keep_bytes=0, ram_dir=str(tmp_path / "ram"), ram_bytes=64 * 2**20)


def test_a_conversation_is_kept_in_memory_alone(engine: LlamaEngine, in_ram: ContextOptions, tmp_path: Path) -> None:
    engine.open_context("main", in_ram)
    first = _ask(engine)
    _again(engine, in_ram)
    second = _ask(engine)
    assert first.ended is not None
    assert _cached(second) == first.ended.prompt_tokens - 1
    assert_same_answers(engine.facts, [second], [first])
    (file,) = (tmp_path / "ram").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "ram").stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / "conversations").exists()


@pytest.mark.parametrize("lost", ["ram", "conversations"])
def test_a_conversation_that_is_kept_twice_is_read_from_the_other_place(
    engine: LlamaEngine, in_ram: ContextOptions, tmp_path: Path, lost: str
) -> None:
    both = replace(in_ram, keep_bytes=64 * 2**20)
    engine.open_context("main", both)
    _ask(engine)
    engine.close_context("main")
    (file,) = (tmp_path / lost).iterdir()
    file.unlink()
    engine.open_context("main", both)
    assert _cached(_ask(engine)) > 64


def test_a_folder_in_memory_that_others_may_enter_is_not_used(
    engine: LlamaEngine, in_ram: ContextOptions, tmp_path: Path
) -> None:
    (tmp_path / "ram").mkdir(mode=0o755)
    engine.open_context("main", in_ram)
    _ask(engine)
    _again(engine, in_ram)
    assert _cached(_ask(engine)) == 0
    assert not list((tmp_path / "ram").iterdir())


def test_a_revision_that_opened_before_the_old_one_closed_reads_its_states(
    engine: LlamaEngine, in_ram: ContextOptions
) -> None:
    engine.open_context("main", in_ram)
    engine.open_context("next", in_ram)
    answer(engine, TALK, owner="ann")
    assert _cached(answer(engine, TALK, owner="ann", context="next")) == 0
    more = TALK + TALK
    answer(engine, more, owner="ann")
    engine.close_context("main")
    assert _cached(answer(engine, more, owner="ann", context="next")) > 64


def test_the_files_are_bounded(engine: LlamaEngine, options: ContextOptions, tmp_path: Path) -> None:
    engine.open_context("main", options)
    _ask(engine)
    engine.close_context("main")
    (file,) = (tmp_path / "conversations").iterdir()
    bound = file.stat().st_size * 3 // 2
    engine.open_context("main", replace(options, keep_bytes=bound))
    for number in range(2):
        answer(engine, f"{number} {TALK}")
    engine.close_context("main")
    (kept,) = (tmp_path / "conversations").iterdir()
    assert kept.name != file.name
    assert kept.stat().st_size <= bound
