"""Pictures and sounds in prompts, with random projectors of real shapes: what is shared, encoded and refused."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mullama.chat.media import MediaLimits, Medium
from mullama.engines.base import Adapter, ContextOptions, DraftOptions, Generate, MediaFacts, Projector, Prompt
from mullama.engines.llamacpp.binding.context import ABORTED, NativeContext
from mullama.engines.llamacpp.binding.vectors import VectorBatch
from mullama.engines.llamacpp.engine import LlamaEngine
from mullama.errors import BadWeights, Kind, MullamaError, Refused
from mullama.struct import replace
from tests.engines.engine_driver import Driver, Result, answers, ask
from tests.engines.llamacpp import builders
from tests.engines.llamacpp.media import projectors
from tests.engines.llamacpp.media.projectors import png, wav
from tests.engines.near_tie import ALTERNATIVES, assert_same_answers

M = "\ue001"  # the marker
RED, BLUE = Medium.of("image", png(90, 60, seed=1)), Medium.of("image", png(90, 60, seed=2))
INTRO = "A guide to pictures and sounds, page one: " + "look first and then speak. " * 12
LONG = Medium.of("image", png(280, 140, seed=3))
TONE, LOW = Medium.of("audio", wav(1.0)), Medium.of("audio", wav(1.0, hertz=100))


@dataclass(frozen=True)
class Family:
    """Weights and the projector of their kind, with two media that it reads."""

    weights: Callable[[Path], None]
    projector: Callable[[Path], None]
    media: tuple[Medium, Medium]


FAMILIES = {
    "llava": Family(builders.llama, projectors.llava, (RED, BLUE)),
    "idefics3": Family(builders.llama, projectors.idefics3, (RED, BLUE)),
    "gemma3": Family(builders.gemma3, projectors.gemma3, (RED, BLUE)),
    "qwen2vl": Family(builders.mrope, projectors.qwen2vl, (RED, BLUE)),
    "qwen2a": Family(builders.llama, projectors.qwen2a, (TONE, LOW)),
    "ultravox": Family(builders.llama, projectors.ultravox, (TONE, LOW)),
    "voxtral": Family(builders.llama, projectors.voxtral, (TONE, LOW)),
    "recurrent": Family(builders.recurrent, projectors.llava, (RED, BLUE)),
    "hybrid": Family(builders.hybrid, projectors.llava, (RED, BLUE)),
}
OPTIONS = ContextOptions(size=1024, parallel=4, threads=1, batch=256, ubatch=256)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[[Path], None]], str]:
    """Return the path of the file that a writer writes, once for each."""
    folder, written = tmp_path_factory.mktemp("projectors"), {}

    def file(write: Callable[[Path], None]) -> str:
        if write not in written:
            written[write] = folder / f"{write.__module__}.{write.__name__}.gguf"
            write(written[write])
        return str(written[write])

    return file


Open = Callable[..., LlamaEngine]


@pytest.fixture
def opened(load: Callable[..., Any], files: Callable[[Callable[[Path], None]], str]) -> Open:
    """Return a function that loads the weights of a family, and opens a context `main` with its projector."""

    def one(family: str, **changes: Any) -> LlamaEngine:
        chosen = FAMILIES[family]
        engine: LlamaEngine = load("llamacpp", files(chosen.weights))
        projector = Projector(path=files(chosen.projector), gpu=False)
        engine.open_context("main", replace(OPTIONS, projector=projector, **changes))
        return engine

    return one


def see(id: int, prompt: str, *media: Medium, **changes: Any) -> Generate:
    return ask(id, prompt, **{"marker": M, "media": media, "max_tokens": 8, "logprobs": ALTERNATIVES, **changes})


def encoded(engine: LlamaEngine) -> int:
    return sum(encoder.encoded for encoder in engine._encoders.values())


def ended(result: Result) -> tuple[int, int]:
    """Return the tokens of the prompt, and those that were in memory."""
    assert result.ended is not None, result.failed
    return result.ended.prompt_tokens, result.ended.cached_tokens


@pytest.mark.parametrize("name", FAMILIES)
def test_an_answer_is_the_same_with_and_without_sharing(name: str, opened: Open) -> None:
    engine, (one, other) = opened(name), FAMILIES[name].media
    question, next_one = INTRO + f"{M} What is in it?", INTRO + f"{M} Is it large?"
    (alone,) = answers(engine, see(1, question, one, cache=False))
    (next_alone,) = answers(engine, see(2, next_one, one, cache=False))
    (first,) = answers(engine, see(3, question, one))
    (again,) = answers(engine, see(4, question, one))
    (second,) = answers(engine, see(5, next_one, one))

    assert_same_answers(engine.facts, [first, again, second], [alone, alone, next_alone])
    assert ended(alone)[1] == ended(first)[1] == 0
    total, cached = ended(again)
    assert total - cached <= 8  # all but the last tokens
    assert ended(second)[1] > 64
    assert encoded(engine) == len(engine.prepare(see(9, question, one)).runs)  # type: ignore[union-attr]

    (different,) = answers(engine, see(6, question, other))
    assert max(abs(a.logprob - b.logprob) for a, b in zip(different.logprobs, alone.logprobs, strict=False)) > 0.05


@pytest.mark.parametrize("name", FAMILIES)
def test_requests_together_answer_as_each_alone(name: str, opened: Open) -> None:
    engine, (one, other) = opened(name), FAMILIES[name].media
    jobs = [
        see(1, f"First: {M} describe it.", one, cache=False),
        ask(2, "Plain text beside it, of some words.", max_tokens=24, cache=False, logprobs=ALTERNATIVES),
        see(3, f"Other words {M} and what do you see?", other, cache=False),
    ]
    alone = [answers(engine, job)[0] for job in jobs]
    together = answers(engine, *jobs)
    assert_same_answers(engine.facts, together, alone)
    assert [ended(result)[0] for result in together] == [ended(result)[0] for result in alone]


def test_eight_requests_with_one_picture_encode_it_once_and_share_its_cells(opened: Open) -> None:
    engine = opened("qwen2vl", parallel=8)
    jobs = [see(number, f"{M} Question number {number}?", LONG) for number in range(8)]
    results = answers(engine, *jobs)
    assert encoded(engine) == 1
    assert sum(ended(result)[1] >= 50 for result in results) == 7  # the vectors of the picture
    assert engine.stats().cells_used < 8 * 50


def test_several_pictures_are_encoded_once_each(opened: Open) -> None:
    engine = opened("qwen2vl")
    text = f"First {M} then {M} and again {M}. Compare."
    (result,) = answers(engine, see(1, text, RED, BLUE, RED, cache=False))
    (swapped,) = answers(engine, see(2, text, BLUE, RED, BLUE, cache=False))
    assert encoded(engine) == 2
    assert ended(result)[0] == ended(swapped)[0]
    (shared,) = answers(engine, see(3, text, RED, BLUE, RED))
    (again,) = answers(engine, see(4, text, RED, BLUE, RED))
    assert_same_answers(engine.facts, [shared, again], [result, result])


@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_are_counted_without_an_encode(name: str, opened: Open) -> None:
    engine, (one, other) = opened(name), FAMILIES[name].media
    text = f"Two: {M} and {M} end."
    prompt = Prompt(context="main", prompt=text, marker=M, media=(one, other))
    counted = engine.count_tokens(prompt)
    assert encoded(engine) == 0
    if counted < OPTIONS.size:
        (result,) = answers(engine, see(1, text, one, other, max_tokens=1))
        assert ended(result)[0] == counted
    assert engine.count_tokens(prompt) == counted


def test_pictures_with_rows_and_columns_take_more_cells_than_positions(opened: Open) -> None:
    engine = opened("qwen2vl")
    (result,) = answers(engine, see(1, f"{M} Describe it.", LONG, max_tokens=4))
    job: Any = engine.prepare(see(2, f"{M} Describe it.", LONG))
    (run,) = job.runs
    assert run.run.tokens == 50
    assert len(run.run.numbers) == 10
    total, _ = ended(result)
    assert total == len(job.prompt) + 40
    held = engine.stats().caches[0].used
    assert held == total + 3  # the last token of the answer is not computed


def test_long_runs_are_decoded_in_parts_beside_text(opened: Open) -> None:
    """A run of 750 vectors takes several decodes, and a token of the text comes after each."""
    engine = opened("qwen2a", batch=128, ubatch=128)
    driver = Driver(engine).submit(ask(1, "Count for me, please.", max_tokens=40, ignore_eos=True))
    driver.run(until=lambda: driver.results[1].count >= 2)
    driver.submit(see(2, f"{M} What did they say?", TONE))
    gaps, steps, before = [], 0, driver.results[1].count
    while not driver.results[2].count and not driver.results[1].done:
        driver.step()
        steps += 1
        if driver.results[1].count > before:
            gaps.append(steps)
            steps, before = 0, driver.results[1].count
    assert max(gaps) <= 3  # a decode of vectors, one of text, and the report of its outputs
    assert len(gaps) >= 4
    driver.run()
    assert driver.results[2].ended is not None


def test_requests_that_wait_for_cells_are_resumed_with_their_pictures(opened: Open) -> None:
    whole, small = opened("qwen2vl", size=256, parallel=3), opened("qwen2vl", size=256, parallel=3, pool=256)
    jobs = [
        see(number, f"Words {number} {M} tell a long story.", medium, max_tokens=80)
        for number, medium in enumerate((RED, BLUE, LONG))
    ]
    assert_same_answers(small.facts, answers(small, *jobs), answers(whole, *jobs))
    assert small.stats().pools[0].set_asides > 0


def test_a_cancelled_request_leaves_no_part_of_a_run(opened: Open) -> None:
    engine = opened("qwen2a", batch=128, ubatch=128)
    driver = Driver(engine).submit(see(1, f"{M} What?", TONE))
    driver.step()
    driver.step()
    engine.cancel(1)
    driver.run()
    assert driver.results[1].ended is not None
    assert driver.results[1].ended.reason == "cancelled"
    (fresh,) = answers(engine, see(2, f"{M} What?", TONE, cache=False))
    (shared,) = answers(engine, see(3, f"{M} What?", TONE))
    assert_same_answers(engine.facts, [shared], [fresh])


def test_an_aborted_decode_leaves_no_part_of_a_run(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp keeps the cells of the micro-batches that it computed before the abort."""
    engine = opened("qwen2a", batch=128, ubatch=128)
    (alone,) = answers(engine, see(1, f"{M} What?", TONE, cache=False))
    decode, aborted = NativeContext.decode, []

    def aborts(native: NativeContext, batch: Any) -> int:
        if isinstance(batch, VectorBatch) and len(aborted) < 2:
            aborted.append(batch.count)
            half = batch.count // 2
            decode(native, VectorBatch(int(batch._sequences[0]), batch._vectors[:half], batch._positions[:, :half]))
            return ABORTED
        return decode(native, batch)

    monkeypatch.setattr(NativeContext, "decode", aborts)
    (result,) = answers(engine, see(2, f"{M} What?", TONE, cache=False))
    assert aborted
    assert_same_answers(engine.facts, [result], [alone])


def test_encoded_media_are_kept_within_their_bytes(
    load: Callable[..., Any], files: Callable[[Callable[[Path], None]], str]
) -> None:
    engine: LlamaEngine = load("llamacpp", files(builders.llama))
    room = 16 * 64 * 4  # the vectors of one picture
    projector = Projector(path=files(projectors.llava), gpu=False, cache_bytes=room)
    engine.open_context("main", replace(OPTIONS, projector=projector))
    for number, medium in enumerate((RED, RED, BLUE, RED)):
        answers(engine, see(number, f"{M} {number}?", medium, max_tokens=1))
    assert encoded(engine) == 3


@pytest.mark.parametrize(
    ("prompt", "media", "changes", "kind", "message"),
    [
        (f"{M}?", (Medium.of("image", b"no picture"),), {}, Kind.INVALID, "medium 1 of the request is not an image"),
        (f"{M}?", (Medium.of("image", RED.data[:60]),), {}, Kind.INVALID, "medium 1 of the request is a damaged"),
        (f"{M}?", (TONE,), {}, Kind.INVALID, "the model reads no sounds"),
        (f"{M}?", (RED,), {"media_limits": MediaLimits(pixels=100)}, Kind.TOO_LARGE, "medium 1 of the request has 90"),
        (f"{M}?", (RED,), {"media_limits": MediaLimits(image=10)}, Kind.TOO_LARGE, "medium 1 of the request has"),
        (f"{M} {M}?", (RED,), {}, Kind.INVALID, "the prompt has 2 places for 1 media"),
        (f"See {M}", (RED,), {}, Kind.INVALID, "the prompt ends with a medium"),
        (f"{M}?", (RED,), {"echo": True}, Kind.INVALID, "a request with media cannot echo its prompt"),
        (f"{M}?" + " word" * 2000, (RED,), {}, Kind.INVALID, "the prompt has"),
    ],
)
def test_media_that_cannot_be_read_end_their_request_alone(
    prompt: str, media: tuple[Medium, ...], changes: dict[str, Any], kind: Kind, message: str, opened: Open
) -> None:
    engine = opened("llava")
    bad, good = answers(engine, see(1, prompt, *media, **changes), see(2, f"{M} And this?", BLUE))
    assert bad.failed is not None
    assert (bad.failed.kind, bad.failed.message[: len(message)]) == (kind, message)
    assert good.ended is not None


@pytest.mark.parametrize("name", ["qwen2a", "ultravox"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_sound_of_no_numbers_reaches_no_other_request(name: str, value: str, opened: Open) -> None:
    """Without flash attention, its vectors in the cells of a context would spoil all answers after it."""
    engine, ask_again = opened(name, size=2048, flash="off"), see(2, "A question of text.", cache=False)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, 16_000, 64_000, 4, 32)
    body = struct.pack("<16000f", *[0.1] * 8000, *[float(value)] * 8000)
    sound = b"RIFF\0\0\0\0WAVE" + form + struct.pack("<4sI", b"data", len(body)) + body
    before = answers(engine, ask_again)
    bad, beside = answers(engine, see(1, f"{M} or {M}?", TONE, Medium.of("audio", sound)), ask_again)
    assert bad.failed is not None
    assert bad.failed.message == "medium 2 of the request gives values that are no numbers"
    assert_same_answers(engine.facts, [beside, *answers(engine, ask_again)], before * 2)


def test_a_picture_that_one_micro_batch_cannot_hold_names_the_setting(opened: Open) -> None:
    (result,) = answers(opened("gemma3", batch=256, ubatch=8), see(1, f"{M} What?", RED))
    assert result.failed is not None
    assert result.failed.message == (
        "an image of this model needs 16 tokens in one micro-batch, and context.ubatch is 8"
    )


def test_a_context_without_a_projector_reads_no_media(load: Callable[..., Any], tiny_path: str) -> None:
    engine = load("llamacpp", tiny_path)
    facts = engine.open_context("main", OPTIONS)
    assert facts.media is None
    (result,) = answers(engine, see(1, f"{M}?", RED))
    assert result.failed is not None
    assert result.failed.message == "the model reads no images"


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: projectors.llava(path, out=96), "belongs to other weights"),
        (builders.llama, "cannot load the projector"),
        (lambda path: path.write_bytes(b"GGUF"), "cannot load the projector"),
    ],
)
def test_a_wrong_projector_is_refused(
    write: Callable[[Path], object],
    message: str,
    load: Callable[..., Any],
    files: Callable[[Callable[[Path], None]], str],
    tmp_path: Path,
) -> None:
    write(tmp_path / "wrong.gguf")
    engine = load("llamacpp", files(builders.llama))
    with pytest.raises(BadWeights, match=message):
        engine.open_context("main", replace(OPTIONS, projector=Projector(path=str(tmp_path / "wrong.gguf"), gpu=False)))
    engine.open_context("main", OPTIONS)  # the weights still serve


def test_a_context_that_cannot_be_opened_frees_its_projector(
    load: Callable[..., Any], files: Callable[[Callable[[Path], None]], str]
) -> None:
    engine: LlamaEngine = load("llamacpp", files(builders.llama))
    projector = Projector(path=files(projectors.llava), gpu=False)
    with pytest.raises(Refused, match="parallel is 400"):
        engine.open_context("main", replace(OPTIONS, projector=projector, parallel=400))
    assert not engine._encoders


def test_a_closed_context_frees_its_projector(opened: Open) -> None:
    engine = opened("llava")
    projector = next(iter(engine._encoders))
    engine.open_context("other", replace(OPTIONS, projector=projector))
    assert len(engine._encoders) == 1
    engine.close_context("main")
    assert len(engine._encoders) == 1
    engine.close_context("other")
    assert not engine._encoders
    with pytest.raises(MullamaError):
        engine.prepare(see(1, f"{M}?", RED))


@pytest.mark.parametrize("name", ["qwen2vl", "gemma3", "hybrid"])
def test_guesses_for_text_leave_requests_with_media_alone(name: str, opened: Open) -> None:
    engine, (one, _) = opened(name), FAMILIES[name].media
    guessing = opened(name, draft=DraftOptions(kind="ngram"))
    jobs = [
        ask(1, "one two three four " * 12, max_tokens=32, logprobs=ALTERNATIVES),
        see(2, f"one two three {M} four one two three four", one, max_tokens=32),
    ]
    alone = [answers(engine, job)[0] for job in jobs]
    assert_same_answers(engine.facts, answers(guessing, *jobs), alone)
    assert_same_answers(engine.facts, [answers(guessing, job)[0] for job in jobs], alone)
    (again,) = answers(guessing, replace(jobs[1], id=3))
    assert again.ended is not None
    assert again.ended.draft_tokens == 0


def test_requests_with_other_adapter_scales_share_no_run(
    opened: Open, files: Callable[[Callable[[Path], None]], str], tmp_path: Path
) -> None:
    builders.adapter(tmp_path / "adapter.gguf", weights=Path(files(builders.llama)))
    engine = opened("llava", adapters=(Adapter(path=str(tmp_path / "adapter.gguf"), scale=1.0),))
    jobs = [see(number, f"{M} What is it?", LONG, scales=(float(number),)) for number in range(3)]
    alone = [answers(engine, replace(job, id=job.id + 10, cache=False))[0] for job in jobs]
    together = answers(engine, *jobs)
    assert_same_answers(engine.facts, together, alone)
    assert [ended(result)[1] for result in together] == [0, 0, 0]
    assert together[0].logprobs != together[2].logprobs
    assert encoded(engine) == 1


SEES = MediaFacts(vision=True, audio=False)


def test_a_known_projector_is_loaded_with_its_first_picture_and_changes_no_memory(
    opened: Open, load: Callable[..., Any], files: Callable[[Callable[[Path], None]], str]
) -> None:
    pooled = opened("llava")
    engine: LlamaEngine = load("llamacpp", files(builders.llama))
    known = Projector(path=files(projectors.llava), gpu=False, known=SEES)
    facts = engine.open_context("main", replace(OPTIONS, projector=known))
    plain = engine.open_context("plain", OPTIONS)
    assert facts.media == SEES
    assert (facts.kv_bytes, facts.pool) == (plain.kv_bytes, plain.pool)  # slots, as without a projector
    (encoder,) = engine._encoders.values()
    text, *jobs = (
        ask(1, INTRO, logprobs=ALTERNATIVES),
        see(2, f"{INTRO}{M} What?", RED),
        see(3, f"{INTRO}{M} What?", BLUE),
    )
    assert_same_answers(engine.facts, answers(engine, text), answers(pooled, text))
    assert encoder._opened is None
    assert_same_answers(engine.facts, answers(engine, *jobs), [answers(pooled, job)[0] for job in jobs])
    assert encoder._opened is not None
    (again,) = answers(engine, replace(jobs[0], id=4))
    tokens, cached = ended(again)
    assert cached == tokens - 1


def test_a_known_projector_that_is_gone_fails_the_requests_with_pictures_alone(
    load: Callable[..., Any], files: Callable[[Callable[[Path], None]], str], tmp_path: Path
) -> None:
    engine: LlamaEngine = load("llamacpp", files(builders.llama))
    engine.open_context("main", replace(OPTIONS, projector=Projector(path=str(tmp_path / "no.gguf"), known=SEES)))
    with pytest.raises(BadWeights, match="cannot load the projector"):
        engine.prepare(see(1, f"{M} What?", RED))
    (answer,) = answers(engine, ask(2, INTRO))
    assert answer.ended is not None


@pytest.mark.parametrize("projector", ["None", "Projector(path='no.gguf', known=MediaFacts(vision=True, audio=True))"])
def test_text_alone_loads_no_library_of_media(projector: str, tiny_path: str) -> None:
    code = (
        "import sys\n"
        "from mullama.engines.base import ContextOptions, MediaFacts, Projector, WeightsOptions\n"
        "from mullama.engines.llamacpp.engine import load\n"
        f"engine = load(({tiny_path!r},), WeightsOptions(), lambda _: True)\n"
        f"engine.open_context('main', ContextOptions(size=256, projector={projector}))\n"
        "print([name for name in sys.modules if 'mtmd' in name or 'binding.media' in name])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "[]"
