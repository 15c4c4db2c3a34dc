"""The scripted engine: answers of its script, commands in a prompt, and faults on request."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.chat.media import MediaLimits, Medium
from mullama.chat.types import Constraint
from mullama.engines.base import ContextOptions, Embed, Engine, Prompt
from mullama.engines.scripted.script import Script, chunk_of, chunks, last_message, parse, reply, token_of
from mullama.errors import BadWeights
from tests.engines.engine_driver import Driver, answer, answers, ask
from tests.processor_time import processor_time

ROOT = Path(__file__).parents[3]


@pytest.fixture
def scripted(tmp_path: Path, load: Callable[..., Engine]) -> Callable[..., Engine]:
    def one(**script: object) -> Engine:
        (tmp_path / "a.script.json").write_text(json.dumps(script))
        engine = load("scripted", str(tmp_path / "a.script.json"))
        engine.open_context("main", ContextOptions(size=512, parallel=4))
        return engine

    return one


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("hello", "hello"),
        ("count to 5", "1 2 3 4 5"),
        ("3 tokens", "00 01 02 "),
        ("say yes and no", "yes and no"),
        ("think it over\nsay done", "<think>\nit over\n</think>\n\ndone"),
        ('call f {"a": [1, 2]}', '<tool_call>\n{"name": "f", "arguments": {"a": [1, 2]}}\n</tool_call>'),
        ("crash segv", "crash segv"),
    ],
)
def test_the_words_of_a_message_ask_for_an_answer(message: str, text: str) -> None:
    assert reply(Script(), message).text == text
    assert reply(Script(), message).fault == ""


def test_only_the_last_message_counts() -> None:
    first = "<|im_start|>user\nsay a<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
    prompt = first + "<|im_start|>user\nsay b<|im_end|>\n<|im_start|>assistant\n"
    assert last_message(prompt) == "say b"
    assert reply(Script(), prompt).text == "b"


def test_rules_answer_before_words_do(scripted: Callable[..., Engine]) -> None:
    rules = [
        {"when": "weath?er", "think": "hm", "say": "Rain."},
        {"when": "tool", "call": {"name": "f", "arguments": {}}},
    ]
    engine = scripted(rules=rules, default="I do not know.")
    assert answer(engine, "How is the WEATHER?").text == "<think>\nhm\n</think>\n\nRain."
    assert answer(engine, "use a tool").text.startswith("<tool_call>")
    assert answer(engine, "what else").text == "I do not know."


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "not JSON"),
        ("[]", "object"),
        ('{"colour": 1}', "colour"),
        ('{"rules": [{"say": "x"}]}', "when"),
        ('{"rules": [{"when": "("}]}', "regular"),
        ('{"rules": [{"when": "a", "do": "x"}]}', "do"),
    ],
)
def test_a_script_that_is_wrong_says_where(text: str, word: str) -> None:
    with pytest.raises(BadWeights, match=word):
        parse(text, "a.script.json")


@given(st.text(max_size=80))
def test_tokens_are_text_again(text: str) -> None:
    parts = chunks(text)
    assert b"".join(parts).decode("utf-8", "surrogatepass") == text
    assert [chunk_of(token_of(part)) for part in parts] == list(parts)
    assert len(set(map(token_of, parts))) == len(set(parts))


def test_a_burst_gives_several_tokens_in_one_step(scripted: Callable[..., Engine]) -> None:
    engine = scripted(burst=10)
    driver = Driver(engine).submit(ask(1, "100 tokens", max_tokens=None))
    assert driver.run()[1].count == 100
    assert driver.steps < 15


def test_a_grammar_is_refused_unless_the_script_vouches_for_its_answers(scripted: Callable[..., Engine]) -> None:
    constraint = Constraint(grammar='start: "x"')
    refused = answer(scripted(), "say x", constraint=constraint)
    assert refused.failed is not None
    assert "grammar" in refused.failed.message
    assert answer(scripted(constraints=True), "say x", constraint=constraint).text == "x"


def test_a_slow_answer_takes_its_time_and_can_be_cancelled(scripted: Callable[..., Engine]) -> None:
    engine = scripted()
    driver = Driver(engine).submit(ask(1, "slow 30ms 90 tokens", max_tokens=None), ask(2, "count to 3"))
    started = time.monotonic()
    driver.run(until=lambda: driver.results[2].done)
    assert not driver.results[1].done
    driver.run(until=lambda: driver.results[1].count >= 3)
    assert time.monotonic() - started >= 0.06
    assert driver.results[2].ended is not None
    engine.cancel(1)
    ended = driver.run()[1].ended
    assert ended is not None
    assert ended.reason == "cancelled"


def test_texts_that_share_words_have_near_vectors(scripted: Callable[..., Engine]) -> None:
    texts = ("the red house", "the red car", "quantum chromodynamics")
    (result,) = answers(scripted(embedding_length=128), Embed(id=1, context="main", inputs=texts))
    assert result.embedded is not None
    one, two, three = result.embedded.vectors

    def near(left: tuple[float, ...], right: tuple[float, ...]) -> float:
        return sum(a * b for a, b in zip(left, right, strict=True))

    assert near(one, two) > near(one, three)
    (ranked,) = answers(scripted(), Embed(id=1, context="main", pairs=(("red", "red"), ("red", "blue"))))
    assert ranked.embedded is not None
    assert ranked.embedded.vectors[0] > ranked.embedded.vectors[1]


def misbehave(
    tmp_path: Path, words: str, *, faults: bool = True, timeout: float = 60
) -> subprocess.CompletedProcess[bytes]:
    (tmp_path / "bad.script.json").write_text(json.dumps({"faults": faults}))
    code = (
        "import sys\nfrom tests.engines.engine_driver import answer\nfrom mullama.engines import find_engine\n"
        "from mullama.engines.base import *\n"
        "e = find_engine('scripted')((sys.argv[1],), WeightsOptions(), lambda s: True)\n"
        "e.open_context('main', ContextOptions())\nprint(answer(e, sys.argv[2]).text)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "bad.script.json"), words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=timeout, check=False)


@pytest.mark.parametrize(
    ("words", "code"), [("crash segv", -signal.SIGSEGV), ("crash abort", -signal.SIGABRT), ("crash exit", 1)]
)
def test_a_script_with_faults_crashes_on_request(words: str, code: int, tmp_path: Path) -> None:
    assert misbehave(tmp_path, f"please {words} now").returncode == code


def test_a_script_with_faults_floods_on_request(tmp_path: Path) -> None:
    done = misbehave(tmp_path, "flood stderr")
    assert done.returncode == 0
    assert len(done.stderr) > 1_000_000


def test_a_script_with_faults_hangs_on_request(tmp_path: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        misbehave(tmp_path, "hang", timeout=2)


def test_a_script_without_faults_never_misbehaves(tmp_path: Path) -> None:
    for words in ("crash segv", "hang", "flood stderr"):
        done = misbehave(tmp_path, words, faults=False)
        assert done.returncode == 0
        assert done.stdout.decode().strip() == words


@pytest.mark.parametrize("moment", ["on_load", "on_open"])
def test_a_script_may_crash_when_loaded_or_opened(moment: str, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(json.dumps({"faults": True, moment: "crash abort"}))
    code = (
        "import sys\nfrom mullama.engines import find_engine\nfrom mullama.engines.base import *\n"
        "e = find_engine('scripted')((sys.argv[1],), WeightsOptions(), lambda s: True)\n"
        "print('loaded', flush=True)\ne.open_context('main', ContextOptions())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "s.json")], cwd=ROOT, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGABRT
    assert (done.stdout == b"loaded\n") == (moment == "on_open")


def test_a_thousand_tokens_for_32_streams_take_no_time_worth_mentioning(scripted: Callable[..., Engine]) -> None:
    engine = scripted(context=8192)
    engine.open_context("wide", ContextOptions(size=8192, parallel=32))
    with processor_time() as cost:
        results = answers(engine, *(ask(i, "1000 tokens", context="wide", max_tokens=None) for i in range(32)))
        assert sum(result.count for result in results) == 32_000
    assert cost.seconds < 30


def test_media_are_texts_of_the_prompt(scripted: Callable[..., Engine]) -> None:
    engine = scripted(media=["image", "audio"])
    picture, sound = Medium.of("image", b"picture"), Medium.of("audio", b"sound")
    text = "\ue001 and \ue001, not <\ue000|im_end|>"
    result = answer(engine, text, joint="\ue000", marker="\ue001", media=(picture, sound))

    shown = f"[image {picture.digest[:8]}] and [audio {sound.digest[:8]}], not <|im_end|>"
    assert result.text == shown
    counted = engine.count_tokens(
        Prompt(context="main", prompt=text, joint="\ue000", marker="\ue001", media=(picture, sound))
    )
    assert result.ended is not None
    assert counted == result.ended.prompt_tokens == len(chunks(shown))


@pytest.mark.parametrize(
    ("script", "media", "changes", "message"),
    [
        ({}, (Medium.of("image", b"x"),), {}, "the model reads no images"),
        ({"media": ["image"]}, (Medium.of("audio", b"x"),), {}, "the model reads no sounds"),
        ({"media": ["image"]}, (Medium.of("image", b"x"),) * 2, {"count": 1}, "the request has 2 images and sounds"),
        ({"media": ["image"]}, (Medium.of("image", b"x"),) * 2, {}, "the prompt has 1 places for 2 media"),
    ],
)
def test_media_that_cannot_be_read_are_refused(
    scripted: Callable[..., Engine],
    script: dict[str, object],
    media: tuple[Medium, ...],
    changes: dict[str, int],
    message: str,
) -> None:
    result = answer(scripted(**script), "\ue001", marker="\ue001", media=media, media_limits=MediaLimits(**changes))
    assert result.failed is not None
    assert result.failed.message.startswith(message)
