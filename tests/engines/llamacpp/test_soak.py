"""Random requests, cancellations, interruptions and context changes: every job ends once and frees everything."""

from __future__ import annotations

import gc
import itertools
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from mullama.chat.types import Constraint
from mullama.engines.base import Adapter, ContextOptions, DraftOptions, Embed, Generate, Prefix, WeightsOptions
from mullama.engines.llamacpp.cache.slots import SlotCache
from mullama.engines.llamacpp.completion import RunningCompletion
from mullama.engines.llamacpp.engine import LlamaEngine
from mullama.engines.llamacpp.overlap import Overlap
from mullama.engines.llamacpp.pool import CellPool
from mullama.struct import replace
from tests.engines.engine_driver import Driver, answers, ask, sampling, user
from tests.engines.near_tie import ALTERNATIVES, rounding_of, tokens_compared

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
    check(run(engine, seed=7, actions=150))


def test_nothing_is_lost_where_a_decode_computes_between_two_steps(
    memory: str, tiny_path: str, load: Callable[..., LlamaEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Overlap, "pays", True)
    check(run(load("llamacpp", tiny_path), seed=11, actions=150))


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


KINDS = ("llama", "window", "recurrent", "hybrid", "hybrid window", "all experts", "nextn")
"""The classes of architecture: plain, sliding window, recurrent, hybrid, hybrid with a window, experts, MTP."""


class Together(Chaos):
    """Conversations with everything at once: checkpoints, guesses, adapter scales, a pool that is too small, states on
    disk, cancellations and reopened contexts.

    Every job is greedy. `asked` has those that nobody cancelled, with their scales, so that their answers can be
    compared with those of a context of their own.
    """

    def __init__(self, engine: LlamaEngine, seed: int, options: ContextOptions) -> None:
        super().__init__(engine, seed, options)
        self.asked: dict[int, Generate] = {}
        self.begun: dict[int, int] = {}  # step in which each job was submitted
        self.waits: list[int] = []  # steps from the submission of each job to its end
        self.talks = [""] * 4

    def act(self) -> None:
        roll = self.random.random()
        waiting = len(self.begun)
        if roll < 0.2 and waiting < 12:
            job = self.job()
            self.driver.submit(job)
            self.begun[job.id] = self.driver.steps
            self.asked[job.id] = replace(job, scales=job.scales or (self.options.adapters[0].scale,))
        elif roll < 0.215 and self.begun:
            id = self.random.choice(list(self.begun))
            self.asked.pop(id, None)
            self.engine.cancel(id)
        elif roll < 0.235:
            self.engine.interrupt()
        elif roll < 0.24:
            for id in self.begun:
                self.asked.pop(id, None)
            self.engine.close_context("main")
            self.engine.open_context("main", self.options)
        elif roll < 0.25:
            scales = (self.random.choice([0.0, 1.0]),)
            self.engine.retune_context("main", threads=1, scales=scales)
            adapters = tuple(replace(adapter, scale=scales[0]) for adapter in self.options.adapters)
            self.options = replace(self.options, adapters=adapters)
        else:
            self.driver.step()
        self.look()

    def look(self) -> None:
        """Memory is within its bounds after each step, and no job waits for ever."""
        for id in [id for id in self.begun if self.driver.results[id].done]:
            self.waits.append(self.driver.steps - self.begun.pop(id))
            self.talk(id)
        stats = self.engine.stats()
        for pool in stats.pools:
            assert pool.used <= pool.size
        for kept in stats.checkpoints:
            assert kept.bytes <= kept.most_bytes

    def job(self) -> Generate:
        self.next += 1
        r, id = self.random, self.next
        talk = r.randrange(len(self.talks))
        if len(self.talks[talk]) > 700:
            self.talks[talk] = ""
        question = f"question {r.randrange(9)} " * r.randrange(1, 12)
        prompt = (self.talks[talk] or (SYSTEM if r.random() < 0.7 else "")) + user(question)
        self.talks[talk] = prompt
        return ask(
            id, prompt, max_tokens=r.choice([1, 8, 40, 60]), logprobs=ALTERNATIVES, cache=r.random() < 0.9,
            owner=r.choice(["ann", "bob"]), scales=r.choice([None, None, (0.0,), (2.0,)]),
        )  # fmt: skip

    def talk(self, id: int) -> None:
        """Continue a conversation: with the answer, or with a part of it, as clients that strip reasoning do."""
        result, job = self.driver.results[id], self.asked.get(id)
        for number, talk in enumerate(self.talks):
            if job is not None and talk == job.prompt:
                text = result.text[self.random.choice([0, len(result.text) // 2]) :]
                self.talks[number] = f"{talk}{text}<|im_end|>\n"


_ROUNDINGS = 5  # times the usual bound: many thousand tokens are compared, and a wrong state differs by much more


def check_answers(chaos: Together, most: int) -> None:
    """Compare answers with those of contexts of their own."""
    engine = chaos.engine
    ids = [id for id in chaos.asked if chaos.driver.results[id].ended]
    ids = chaos.random.sample(ids, min(most, len(ids)))
    plain = replace(chaos.options, parallel=1, pool=0, draft=None, prefixes=(), state_dir=None, keep_bytes=0)
    expected = []
    for id in ids:
        job = chaos.asked[id]
        engine.open_context("alone", plain)
        expected += answers(engine, replace(job, context="alone"))
        engine.close_context("alone")
    rounding, ends = _ROUNDINGS * rounding_of(engine.facts), engine.facts.end_tokens
    for id, result in zip(ids, expected, strict=True):
        tokens_compared(chaos.driver.results[id], result, rounding=rounding, ends=ends)


def turmoil(
    kind: str, engine: LlamaEngine, adapter: str, folder: Path, seed: int, actions: int, drafter: str = ""
) -> Together:
    """Run a storm of everything over one kind of memory. folder: for the states of its conversations.

    drafter: the file of a draft model, "" for none.
    """
    draft = DraftOptions(kind="mtp", tokens=3) if kind == "nextn" else DraftOptions(kind="ngram")
    draft = DraftOptions(kind="model", tokens=4, files=(drafter,)) if drafter else draft
    options = replace(
        OPTIONS,
        parallel=5,
        pool=256,
        draft=draft,
        adapters=(Adapter(path=adapter, scale=1.0),),
        state_dir=str(folder),
        state_key=kind,
        keep_bytes=8 * 2**20,
    )
    chaos = run(engine, seed, actions, Together, options)
    assert isinstance(chaos, Together)
    chaos.look()
    assert not chaos.begun
    check(chaos)
    return chaos


@pytest.mark.usefixtures("guessing")
@pytest.mark.parametrize("kind", KINDS)
def test_everything_together_loses_nothing_and_changes_no_answer(
    kind: str,
    set_asides: list[int],
    tmp_path: Path,
    random_model: Callable[[str], str],
    load: Callable[..., LlamaEngine],
) -> None:
    engine = load("llamacpp", random_model(kind), options=WeightsOptions(drafting=kind == "nextn"))
    actions = 80 if kind == "nextn" else 130  # its model is the largest
    chaos = turmoil(kind, engine, random_model(f"adapter of {kind}"), tmp_path, seed=5, actions=actions)
    check_answers(chaos, most=4)


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


@pytest.mark.parametrize("kind", ["window", "hybrid"])
def test_checkpoints_of_many_conversations_keep_their_bound_and_the_memory_of_the_process(
    kind: str, random_model: Callable[[str], str], load: Callable[..., LlamaEngine]
) -> None:
    """Eighty requests: the second half takes no further memory, whatever the conversations are."""
    engine = load("llamacpp", random_model(kind))
    engine.open_context("main", replace(OPTIONS, prefixes=(), checkpoint_bytes=2**20))
    dice, talks, sizes = random.Random(3), [""] * 6, []
    for number in range(80):
        talk = dice.randrange(len(talks))
        if len(talks[talk]) > 500:
            talks[talk] = ""
        talks[talk] += user(f"question {dice.randrange(99)} " * dice.randrange(1, 12))
        (result,) = answers(engine, ask(number, talks[talk], max_tokens=dice.choice([1, 8])))
        talks[talk] += f"{result.text[len(result.text) // 2 :]}<|im_end|>\n"
        (kept,) = engine.stats().checkpoints
        assert kept.bytes <= kept.most_bytes <= 2**20
        sizes.append(psutil.Process().memory_info().rss)
    assert kept.bytes > 0
    assert max(sizes[40:]) - max(sizes[:40]) < 8 * 2**20


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


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.usefixtures("guessing", "set_asides")
def test_everything_together_for_long(
    tmp_path: Path,
    random_model: Callable[[str], str],
    load_settings: dict[str, Any],
    load: Callable[..., LlamaEngine],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Storms with new seeds for `MULLAMA_SOAK_SECONDS`, ten minutes without it; a failure names its storm."""
    process = psutil.Process(os.getpid())
    end = time.monotonic() + float(os.environ.get("MULLAMA_SOAK_SECONDS", "600"))
    sizes: list[int] = []
    for seed in itertools.count(int(os.environ.get("MULLAMA_SOAK_SEED", "0"))):
        kind = KINDS[seed % len(KINDS)]
        load_settings["pool_threshold"] = seed // len(KINDS) % 2 << 30  # one pool of cells, or slots
        engine = load("llamacpp", random_model(kind), options=WeightsOptions(drafting=kind == "nextn"))
        try:
            with monkeypatch.context() as patch:
                if seed // len(KINDS) % 4 > 1:
                    patch.setattr("mullama.engines.llamacpp.open_context.can_page", lambda: False)
                adapter = random_model(f"adapter of {kind}")
                drafter = random_model("llama") if seed % 3 == 0 and kind != "nextn" else ""
                chaos = turmoil(kind, engine, adapter, tmp_path / str(seed), seed, 1500, drafter)
                check_answers(chaos, most=20)
        except BaseException as error:
            error.add_note(f"MULLAMA_SOAK_SEED={seed}: {kind}")
            raise
        engine.close()
        gc.collect()
        sizes.append(process.memory_info().rss)
        waits = f"{len(chaos.waits)} jobs, longest {max(chaos.waits)} steps"
        print(f"{seed} {kind}: {waits}, {sizes[-1] >> 20} MiB")  # noqa: T201 - the progress of ten minutes
        if time.monotonic() > end:
            break
    assert max(sizes) - max(sizes[: 2 * len(KINDS)]) < 64 * 2**20
