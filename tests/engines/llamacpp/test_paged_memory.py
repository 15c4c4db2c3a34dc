"""A cache whose memory is there where cells are: its pages come and go, and its answers are those of any cache."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mullama.engines.base import ContextOptions, WeightsOptions
from mullama.engines.llamacpp.binding import paged_memory
from mullama.engines.llamacpp.binding.context import DECODED, NativeBatch, NativeContext
from mullama.engines.llamacpp.binding.model import NativeModel
from mullama.engines.llamacpp.binding.paged_memory import can_page
from mullama.engines.llamacpp.engine import LlamaEngine
from mullama.engines.llamacpp.placing import WeightsLoader
from tests.engines.engine_driver import answers, ask, user

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pages are given back on Linux alone")
SIZE, SEQUENCES = 4096, 3
OPTIONS = ContextOptions(size=SIZE, parallel=SEQUENCES, batch=256, ubatch=256)


@pytest.fixture(scope="module")
def model(random_model: Callable[[str], str]) -> Iterator[NativeModel]:
    loaded = WeightsLoader((random_model("llama"),), WeightsOptions(), lambda _share: True).load()
    yield loaded
    loaded.close()


def context(model: NativeModel, *, paged: int = 0) -> NativeContext:
    return NativeContext(
        model, OPTIONS, cells=SIZE * SEQUENCES, sequences=SEQUENCES, outputs=SEQUENCES, threads=(1, 1), pool=False,
        paged=paged,
    )  # fmt: skip


def resident(native: NativeContext) -> int:
    """The bytes of the cache's mappings that are resident, as the system counts them."""
    assert native._paged is not None
    tensors = native._paged._tensors
    starts = {f"{paged_memory._base(tensor.pages):x}-" for tensor in tensors}
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if line.split()[0].endswith(":"):
            found += int(line.split()[1]) * 1024 if inside and line.startswith("Rss:") else 0
        else:
            inside = any(line.startswith(start) for start in starts)
    return found


def decode(native: NativeContext, parts: list[tuple[int, int, list[int]]]) -> np.ndarray:
    """The logits behind the last token of each part, as (sequence, position, tokens)."""
    batch = NativeBatch(native.batch_size)
    for sequence, position, tokens in parts:
        batch.add(sequence, position, tokens, 1)
    assert native.decode(batch) == DECODED
    native.synchronize()
    return native.logits(len(parts)).copy()


def test_this_system_can_page() -> None:
    assert can_page()


def test_pages_come_with_tokens_and_go_with_them(model: NativeModel) -> None:
    native = context(model, paged=SIZE)
    assert resident(native) == 0
    assert native.kv_bytes == pytest.approx(model_bytes(native) / SEQUENCES, rel=0.01)
    row = model_bytes(native) // (SIZE * SEQUENCES)
    for sequence in range(2):
        for start in range(0, 1024, 128):
            decode(native, [(sequence, start, list(range(100, 228)))])
    slack = len(native._paged._tensors) * SEQUENCES * 2 * 4096  # type: ignore[union-attr]
    assert resident(native) == pytest.approx(2 * 1024 * row, abs=slack)
    native.trim(0, 256)
    assert resident(native) == pytest.approx((1024 + 256) * row, abs=slack)
    native.trim(0, 0)
    native.trim(1, 0)
    assert resident(native) <= slack
    native.close()


def model_bytes(native: NativeContext) -> int:
    assert native._paged is not None
    return sum(tensor.size for tensor in native._paged._tensors)


def test_the_rest_of_the_context_has_ordinary_memory(model: NativeModel) -> None:
    native = context(model, paged=SIZE)
    memory = native._paged
    assert memory is not None
    assert len(memory._tensors) == 2 * 2, "keys and values of two layers, no tensor of the graph"
    assert memory._type.alloc_buffer == memory._original
    for sequences in (1, 2, 3):  # each number has a graph of its own, with other views of the cache
        decode(native, [(sequence, 10 * sequences, list(range(100, 110))) for sequence in range(sequences)])
    assert len(memory._tensors) == 2 * 2
    native.close()


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 2), st.integers(1, 200)),
        st.tuples(st.just("cut"), st.integers(0, 2), st.integers(0, 300)),
        st.tuples(st.just("trim"), st.integers(0, 2), st.integers(0, 300)),
        st.tuples(st.just("copy"), st.integers(0, 2), st.integers(0, 2)),
        st.tuples(st.just("move"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("together"), st.integers(1, 3), st.just(0)),
    ),
    min_size=3,
    max_size=12,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS, seed=st.integers(0, 99))
def test_every_token_has_the_logits_of_a_cache_of_full_size(
    model: NativeModel, actions: list[tuple[str, int, int]], seed: int
) -> None:
    """`cut` and `trim` differ in memory alone; a copy and a saved state hold the tokens that they had."""
    paged, full = context(model, paged=SIZE), context(model)
    random, lengths = np.random.default_rng(seed), [0] * SEQUENCES
    for action, first, second in actions:
        match action:
            case "append" | "together":
                chosen = [first] if action == "append" else list(range(first))
                parts = []
                for sequence in chosen:
                    tokens = random.integers(10, 900, second or 1).tolist()
                    parts.append((sequence, lengths[sequence], tokens))
                    lengths[sequence] += len(tokens)
                assert np.array_equal(decode(paged, parts), decode(full, parts))
            case "cut" | "trim":
                lengths[first] = min(lengths[first], second)
                for native in (paged, full):
                    (native.cut if action == "cut" else native.trim)(first, lengths[first])
            case "copy" if first != second and lengths[first]:
                length = lengths[second] = max(1, lengths[first] // 2)
                for native in (paged, full):
                    native.trim(second, 0)
                    native.copy(first, second, length)
            case "move" if lengths[first]:
                for native in (paged, full):
                    state = native.save(first)
                    native.trim(first, 0)
                    assert native.restore(first, state)
        assert [paged.last_position(s) + 1 for s in range(SEQUENCES)] == lengths
    paged.close()
    full.close()


def test_the_slots_of_a_pool_keep_to_its_cells(tiny_path: str, load: Callable[..., LlamaEngine]) -> None:
    engine = load("llamacpp", tiny_path)
    facts = engine.open_context("main", ContextOptions(size=1024, parallel=4, threads=1, pool=1024))
    full = engine.open_context("full", ContextOptions(size=1024, parallel=4, threads=1))
    native = engine._contexts["main"].native
    assert (facts.pool, full.pool, native._paged is not None) == (1024, 0, True)
    assert facts.kv_bytes == pytest.approx(full.kv_bytes / 4, rel=0.01)
    answers(engine, *(ask(id, user(f"Question {id}: " + "what is it? " * 60), max_tokens=2) for id in range(8)))
    assert engine._contexts["main"].cache.used <= 1024
    slack = len(native._paged._tensors) * 4 * 2 * 4096  # type: ignore[union-attr]
    assert resident(native) <= facts.kv_bytes + slack


def test_without_such_memory_there_is_one_pool(
    tiny_path: str, load: Callable[..., LlamaEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mullama.engines.llamacpp.open_context.can_page", lambda: False)
    engine = load("llamacpp", tiny_path)
    facts = engine.open_context("main", ContextOptions(size=1024, parallel=4, threads=1, pool=1024))
    assert (facts.pool, engine._contexts["main"].native._paged) == (1024, None)


@pytest.mark.parametrize("fault", ["division", "mapping"])
def test_a_cache_that_cannot_have_such_memory_is_one_pool(
    fault: str, tiny_path: str, load: Callable[..., LlamaEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama.cpp may divide a cache in another way, and a system may limit the addresses of a process."""
    engine = load("llamacpp", tiny_path)
    assert can_page()
    if fault == "division":
        monkeypatch.setattr(paged_memory.PagedMemory, "divide", lambda *_: False)
    else:
        monkeypatch.setattr(paged_memory.mmap, "mmap", Mock(side_effect=OSError(errno.ENOMEM, "no addresses left")))
    facts = engine.open_context("main", ContextOptions(size=1024, parallel=4, threads=1, pool=1024))
    assert (facts.pool, engine._contexts["main"].native._paged) == (1024, None)
    found = answers(engine, *(ask(id, user(f"Question {id}"), max_tokens=2) for id in range(4)))
    assert all(result.count and result.ended for result in found)
