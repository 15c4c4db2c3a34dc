"""Random requests, cancellations, interruptions and context changes: every job ends once and frees everything."""

from __future__ import annotations

import gc
import os
import random
import threading
from collections.abc import Callable

import psutil
import pytest

from mullama.chat.types import Constraint
from mullama.engines.base import ContextOptions, DraftOptions, Embed, Generate, Prefix
from mullama.engines.llamacpp.cache.slots import SlotCache
from mullama.engines.llamacpp.completion import RunningCompletion
from mullama.engines.llamacpp.engine import LlamaEngine
from mullama.engines.llamacpp.overlap import Overlap
from mullama.engines.llamacpp.pool import CellPool
from mullama.struct import replace
from tests.engines.engine_driver import Driver, ask, sampling, user

SYSTEM = "<|im_start|>system\nYou are a small model that answers in one short sentence and never more.<|im_end|>\n"
OPTIONS = ContextOptions(size=256, parallel=3, threads=1, batch=64, ubatch=64, prefixes=(Prefix(text=SYSTEM),))


class Chaos:
    """A client that does everything at random, from a seed. options: of its contexts."""

    def __init__(self, engine: LlamaEngine, seed: int, options: ContextOptions) -> None:
        self.engine = engine
        self.options = options
        self.driver = Driver(engine)
        self.random = random.Random(seed)
        self.next = 0
        self.contexts: list[str] = []

    def act(self) -> None:
        roll = self.random.random()
        if roll < 0.30:
            self.driver.submit(self.job())
        elif roll < 0.36 and self.driver.results:
            self.engine.cancel(self.random.choice(list(self.driver.results)))
        elif roll < 0.38:
            self.engine.interrupt()
        elif roll < 0.39 and len(self.contexts) < 3:
            self.next += 1
            name = f"c{self.next}"
            draft = self.random.choice([None, DraftOptions(kind="ngram")])
            kv = self.random.choice(["f16", "f32"])
            self.engine.open_context(name, replace(self.options, kv_k=kv, kv_v=kv, draft=draft))  # type: ignore[arg-type]
            self.contexts.append(name)
        elif roll < 0.395 and len(self.contexts) > 1:
            self.engine.close_context(self.contexts.pop(self.random.randrange(len(self.contexts))))
        elif roll < 0.40 and self.contexts:
            text = SYSTEM * self.random.randrange(3)
            self.engine.declare_prefixes(self.random.choice(self.contexts), (Prefix(text=text),) if text else ())
        else:
            self.driver.step()

    def job(self) -> Generate | Embed:
        self.next += 1
        r, id = self.random, self.next
        context = r.choice([*self.contexts, "unknown"]) if r.random() < 0.05 else r.choice(self.contexts)
        if r.random() < 0.1:
            return Embed(id=id, context=context, inputs=tuple("word " * r.randrange(1, 90) for _ in range(4)))
        prompt = (SYSTEM if r.random() < 0.5 else "") + user(f"question {r.randrange(9)} " * r.randrange(1, 40))
        constraint = Constraint(grammar="start: /[a-c]{1,9}/") if r.random() < 0.1 else None
        settings = sampling(temperature=r.choice([0.0, 1.0]), seed=id, repeat_penalty=r.choice([1.0, 1.2]))
        return ask(
            id, prompt, context=context, max_tokens=r.choice([0, 1, 20, None]), sampling=settings,
            constraint=constraint, cache=r.random() < 0.9, ignore_eos=r.random() < 0.2, stop=("e", "you"),
            logprobs=r.choice([None, 2]), echo=r.random() < 0.1,
        )  # fmt: skip


def run(
    engine: LlamaEngine, seed: int, actions: int, kind: type[Chaos] = Chaos, options: ContextOptions = OPTIONS
) -> Chaos:
    chaos = kind(engine, seed, options)
    chaos.contexts.append("main")
    engine.open_context("main", options)
    for _ in range(actions):
        chaos.act()
    chaos.driver.run(steps=100_000)
    return chaos


def check(chaos: Chaos) -> None:
    """Every job ended exactly once (the driver sees to `once`), and every sequence is free again."""
    assert all(result.done for result in chaos.driver.results.values())
    for result in chaos.driver.results.values():
        if result.ended is not None:
            assert result.ended.completion_tokens >= result.count
    stats = chaos.engine.stats()
    assert (stats.running, stats.waiting, stats.sequences_busy) == (0, 0, 0)
    assert not any(pool.set_aside for pool in stats.pools)
    assert stats.cells_used <= stats.cells_total
    for context in chaos.engine._contexts.values():
        cache, native = context.cache, context.native
        assert context.pool is None or context.pool._bytes == 0
        if isinstance(cache, SlotCache):
            lengths = {slot: len(tokens) for slot, tokens in enumerate(cache._tokens)}
        else:
            lengths = {s: cache._lengths.get(s, 0) for s in range(cache.kept + chaos.options.parallel + 1)}
        assert {s: native.last_position(s) + 1 for s in lengths} == lengths, "account and memory agree"


@pytest.mark.parametrize("kind", ["tiny", "window", "recurrent"])
def test_nothing_is_lost_or_left_over_in_a_short_storm(
    kind: str, memory: str, tiny_path: str, random_model: Callable[[str], str], load: Callable[..., LlamaEngine]
) -> None:
    engine = load("llamacpp", tiny_path if kind == "tiny" else random_model(kind))
    check(run(engine, seed=7, actions=300))


def test_nothing_is_lost_where_a_decode_computes_between_two_steps(
    memory: str, tiny_path: str, load: Callable[..., LlamaEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Overlap, "pays", True)
    check(run(load("llamacpp", tiny_path), seed=11, actions=300))


SCARCE = replace(OPTIONS, pool=256, parallel=6, prefixes=())
"""A pool for one whole request, and six of them at once."""


class Crowd(Chaos):
    """As `Chaos`, with answers that are as long as they may be."""

    def job(self) -> Generate | Embed:
        job = super().job()
        return replace(job, max_tokens=60, ignore_eos=True, stop=()) if isinstance(job, Generate) else job


@pytest.fixture
def set_asides(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The requests that were set aside. Requests begin with hardly any reserve, so there are many."""
    found: list[int] = []
    original = CellPool.set_aside

    def counted(pool: CellPool, completion: RunningCompletion) -> None:
        found.append(completion.id)
        original(pool, completion)

    monkeypatch.setattr(CellPool, "set_aside", counted)
    monkeypatch.setattr("mullama.engines.llamacpp.pool.reserve_of", lambda _size: 1)
    return found


@pytest.mark.parametrize("kind", ["llama", "window", "hybrid"])
def test_nothing_is_lost_or_starved_in_a_pool_that_is_too_small(
    kind: str,
    set_asides: list[int],
    random_model: Callable[[str], str],
    load: Callable[..., LlamaEngine],
) -> None:
    engine = load("llamacpp", random_model(kind))
    check(run(engine, 3, 40, Crowd, SCARCE))
    assert set_asides


def test_loading_and_closing_leaves_no_descriptor_thread_or_memory(
    tiny_path: str, load: Callable[..., LlamaEngine]
) -> None:
    process = psutil.Process(os.getpid())

    def cycle(seed: int) -> None:
        engine = load("llamacpp", tiny_path)
        run(engine, seed, actions=60)
        engine.close()

    for seed in range(2):
        cycle(seed)
    gc.collect()
    before = (process.num_fds(), threading.active_count(), process.memory_info().rss)
    for seed in range(4):
        cycle(seed)
    gc.collect()
    assert process.num_fds() <= before[0]  # fewer, if what an earlier test left behind goes meanwhile
    assert threading.active_count() <= before[1]
    assert process.memory_info().rss - before[2] < 20 * 2**20


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["tiny", "window", "recurrent"])
def test_nothing_is_lost_or_left_over_in_a_long_storm(
    kind: str, memory: str, tiny_path: str, random_model: Callable[[str], str], load: Callable[..., LlamaEngine]
) -> None:
    for seed in range(20):
        engine = load("llamacpp", tiny_path if kind == "tiny" else random_model(kind))
        check(run(engine, seed, actions=10_000))
        engine.close()


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["llama", "window", "hybrid"])
def test_nothing_is_lost_or_starved_in_a_pool_that_is_too_small_for_long(
    kind: str,
    set_asides: list[int],
    random_model: Callable[[str], str],
    load: Callable[..., LlamaEngine],
) -> None:
    for seed in range(20):
        engine = load("llamacpp", random_model(kind))
        check(run(engine, seed, 5000, Crowd, SCARCE))
        engine.close()
    assert set_asides
