"""Grammars on tokens: answers follow them, forced tokens are not sampled, bad grammars fail in bounded time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from llguidance import LLMatcher

from mullama.chat.answer import fold
from mullama.chat.constraint.build import build
from mullama.chat.families import family_with
from mullama.chat.reader import read
from mullama.chat.types import Constraint, Tool, ToolChoice
from mullama.engines.base import ContextOptions
from mullama.engines.llamacpp.engine import LlamaEngine
from mullama.engines.llamacpp.sampling import constraint
from mullama.engines.llamacpp.sampling.constraint import ConstraintState
from mullama.engines.llamacpp.sampling.numbers import NumberGuard
from mullama.errors import Invalid, Kind
from tests.engines.engine_driver import Driver, Result, answer, answers, ask, sampling, user

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "pets": {"type": "array", "items": {"enum": ["cat", "dog"]}, "maxItems": 2},
    },
    "required": ["name", "age", "pets"],
    "additionalProperties": False,
}
COMPACT = {"whitespace_flexible": False}


def lark(schema: dict[str, object]) -> str:
    return f"start: %json {json.dumps({**schema, 'x-guidance': COMPACT})}"


def serialised(schema: object) -> str:
    return str(LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=COMPACT))


@pytest.fixture
def engine(tiny_path: str, load: Callable[..., LlamaEngine]) -> LlamaEngine:
    engine = load("llamacpp", tiny_path)
    engine.open_context("main", ContextOptions(size=512, parallel=4, threads=1))
    return engine


def constrained(engine: LlamaEngine, grammar: str, prompt: str = user("Who are you?"), **changes: object) -> Result:
    rules = {k: changes.pop(k) for k in ("triggers", "after", "markers", "repeat", "numbers") if k in changes}
    bound = Constraint(grammar=grammar, **rules)  # type: ignore[arg-type]
    return answer(engine, prompt, constraint=bound, **{"max_tokens": 120, **changes})


@pytest.mark.parametrize("form", [lark, serialised])
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_an_answer_follows_a_schema_to_its_end(
    form: Callable[[object], str], temperature: float, engine: LlamaEngine
) -> None:
    result = constrained(engine, form(PERSON), sampling=sampling(temperature=temperature, seed=3))
    person = json.loads(result.text)
    assert set(person) == {"name", "age", "pets"}
    assert 0 <= person["age"] <= 150
    assert result.ended is not None
    assert result.ended.reason == "stop"
    assert result.ended.completion_tokens == result.count


@pytest.mark.parametrize("digit", [b"7", b"0"])
@pytest.mark.parametrize("kind", ["number", ["number", "null"]])
def test_a_number_of_a_model_that_repeats_a_digit_ends(digit: bytes, kind: object, engine: LlamaEngine) -> None:
    (token,) = engine.tokenize(digit.decode(), add_special=False, parse_special=False)
    schema = {"type": "object", "properties": {"a": {"type": kind}}, "required": ["a"], "additionalProperties": False}
    biased = sampling(temperature=0.0, logit_bias=((token, 100.0),))

    result = constrained(engine, lark(schema), sampling=biased, numbers='"')

    assert result.ended is not None
    assert result.ended.reason == "stop"
    assert isinstance(json.loads(result.text)["a"], int | float)


ADD = Tool(
    name="add",
    parameters={
        "type": "object",
        "properties": {"x": {"type": "number"}},
        "required": ["x"],
        "additionalProperties": False,
    },
)


@pytest.mark.parametrize(
    "name", ["qwen-coder", "glm", "deepseek-v3.2", "gemma", "functiongemma", "lfm", "hermes", "mistral"]
)
def test_a_number_in_a_call_of_a_model_that_repeats_a_digit_ends(name: str, engine: LlamaEngine) -> None:
    (token,) = engine.tokenize("1", add_special=False, parse_special=False)
    family = family_with(name)
    rules = build(family, tools=(ADD,), choice=ToolChoice(mode="required"), parallel=False).constraint
    assert rules is not None
    biased = sampling(temperature=0.0, logit_bias=((token, 100.0),))

    result = answer(engine, user("Hi"), constraint=rules, sampling=biased, max_tokens=200)

    assert result.ended is not None
    assert result.ended.reason == "stop", result.text
    reader = read(family, lambda: "id", tools=(ADD,))
    (call,) = fold((*reader.feed(result.text), *reader.finish())).choices[0].tool_calls
    assert isinstance(call.arguments, dict)
    assert isinstance(call.arguments["x"], int | float)


@pytest.mark.parametrize("name", ["qwen-coder", "gemma", "lfm"])
def test_a_text_in_a_call_may_have_any_digits(name: str) -> None:
    tool = Tool(name="call", parameters={"type": "object", "properties": {"n": {"type": "string"}}, "required": ["n"]})
    rules = build(family_with(name), tools=(tool,), choice=ToolChoice(mode="required")).constraint
    assert rules is not None
    quote = {"qwen-coder": "", "gemma": '<|"|>', "lfm": '"'}[name]
    guard = NumberGuard(rules.numbers.strip('"'))
    guard.feed(f"[call(n={quote}{'7' * 40}".encode())
    assert guard.full is (rules.numbers == "")  # this grammar has no guard


def test_forced_tokens_are_not_sampled(engine: LlamaEngine) -> None:
    """What the grammar determines goes into one decode, so there are fewer steps than tokens."""
    schema = {"type": "object", "properties": {"temperature_in_celsius": {"type": "boolean"}},
              "required": ["temperature_in_celsius"], "additionalProperties": False}  # fmt: skip
    driver = Driver(engine).submit(ask(1, user("Hi"), constraint=Constraint(grammar=serialised(schema)), max_tokens=60))
    result = driver.run()[1]
    assert json.loads(result.text).keys() == {"temperature_in_celsius"}
    before = engine.stats().steps
    result = answer(engine, user("Hi"), constraint=Constraint(grammar=serialised(schema)), max_tokens=60)
    steps = engine.stats().steps - before
    assert result.count >= 8
    assert steps <= result.count // 2


def test_forced_tokens_stop_at_the_limit(engine: LlamaEngine) -> None:
    result = constrained(engine, 'start: "this text is all that may be said"', max_tokens=3)
    assert result.ended is not None
    assert result.ended.reason == "length"
    assert result.ended.completion_tokens == result.count == 3
    assert "this text is all that may be said".startswith(result.text)


def test_forced_text_is_said_as_it_stands(engine: LlamaEngine) -> None:
    result = constrained(engine, 'start: "Grüße, 世界 🙂" /[0-9]/ "end"')
    assert result.text[:-4] == "Grüße, 世界 🙂"
    assert result.text.endswith("end")


def test_stop_strings_count_in_forced_text_too(engine: LlamaEngine) -> None:
    result = constrained(engine, 'start: "one two three four"', stop=("thr",))
    assert result.text == "one two "
    assert result.ended is not None
    assert result.ended.stop == "thr"


def test_logprobs_come_for_every_token_of_a_constrained_answer(engine: LlamaEngine) -> None:
    result = constrained(engine, serialised(PERSON), logprobs=1)
    assert len(result.logprobs) == result.count
    assert "".join(entry.text for entry in result.logprobs) == result.text


def test_constrained_and_free_answers_run_side_by_side(engine: LlamaEngine) -> None:
    free = answer(engine, user("How are you?")).text
    jobs = [ask(i, user("Who are you?"), constraint=Constraint(grammar=lark(PERSON)), max_tokens=120) for i in range(3)]
    results = answers(engine, *jobs, ask(9, user("How are you?")))
    assert results[-1].text == free
    for result in results[:-1]:
        assert set(json.loads(result.text)) == {"name", "age", "pets"}


def test_a_grammar_binds_only_after_its_trigger(engine: LlamaEngine) -> None:
    """The answer is free until it says the trigger, and follows the grammar from the next character on."""
    free = answer(engine, user("How are you?")).text
    trigger = free.split()[1]
    result = constrained(engine, 'start: " <" /[a-z]{3}/ ">"', user("How are you?"), triggers=(trigger,), repeat=False)
    head, _, tail = result.text.partition(trigger)
    assert head == free.partition(trigger)[0]
    assert tail[:2] == " <"
    assert tail[5:] == ">"
    assert result.ended is not None
    assert result.ended.reason == "stop"


def test_a_trigger_may_end_inside_a_token(engine: LlamaEngine) -> None:
    free = answer(engine, user("How are you?")).text
    trigger = free[:6]
    result = constrained(engine, 'start: /(.|\n){4}/ "|"', user("How are you?"), triggers=(trigger,), repeat=False)
    assert result.text[:6] == trigger
    assert result.text[10:] == "|"


def test_a_trigger_that_goes_on_against_the_grammar_is_said_otherwise(engine: LlamaEngine) -> None:
    """A token that would complete the trigger and begin a forbidden rest is not chosen."""
    free = answer(engine, user("How are you?")).text
    trigger = free[:6]
    result = constrained(engine, 'start: "####"', user("How are you?"), triggers=(trigger,), repeat=False)
    if trigger in result.text:
        assert result.text.partition(trigger)[2] == "####"


def test_a_grammar_that_never_triggers_changes_nothing(engine: LlamaEngine) -> None:
    free = answer(engine, user("How are you?"))
    result = constrained(engine, 'start: "x"', user("How are you?"), triggers=("never said",), max_tokens=24)
    assert result.text == free.text
    assert result.ended == free.ended or result.ended is not None


def test_a_repeated_trigger_binds_again(engine: LlamaEngine) -> None:
    result = constrained(
        engine,
        'start: "<" /[ab]/ ">"',
        "1 2 3 1 2 3 1 2 3 1 2 3",
        triggers=(" 2", "2 "),
        max_tokens=60,
        ignore_eos=True,
    )
    parts = result.text.replace("2 ", " 2").split(" 2")
    bound = [part for part in parts[1:] if part]
    assert all(part.startswith(("<a>", "<b>")) for part in bound[:-1])


def test_the_answer_must_pass_what_comes_first(engine: LlamaEngine) -> None:
    """`after`: free, and without an end, until the text was said; then the grammar holds."""
    thinking = "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n<think>\n"
    free = answer(engine, thinking, max_tokens=100).text
    if "</think>" not in free:
        pytest.skip("the built-in model does not think here")
    result = constrained(engine, lark(PERSON), thinking, after="</think>", max_tokens=250)
    head, mark, tail = result.text.partition("</think>")
    assert mark
    assert head == free.partition("</think>")[0]
    assert set(json.loads(tail)) == {"name", "age", "pets"}


def test_no_end_token_comes_before_what_must_come_first(engine: LlamaEngine) -> None:
    result = constrained(engine, 'start: "ok"', user("How are you?"), after="never said at all", max_tokens=80)
    assert result.ended is not None
    assert result.ended.reason == "length"


def test_markers_are_special_tokens_where_the_vocabulary_has_them(engine: LlamaEngine) -> None:
    """`<tool_call>` is one token of the built-in model, `<nothing>` is text."""
    markers = (("mark_open", "<tool_call>"), ("mark_close", "<nothing>"))
    result = constrained(engine, "start: mark_open /[0-9]/ mark_close", markers=markers, want_tokens=True)
    assert result.text[:11] == "<tool_call>"
    assert result.text[12:] == "<nothing>"
    special = engine.tokenize("<tool_call>", add_special=False, parse_special=True)
    assert len(special) == 1
    assert result.ended is not None
    assert special[0] in result.ended.tokens


BAD = [
    "",
    "plain english",
    "start: missing",
    "start: /(/",
    'start: "unclosed',
    'root ::= "a"',
    '{"grammars":[]}',
    '{"grammars":[{"json_schema":{"type":"nothing"}}]}',
    '{"grammars":[{"lark_grammar":"x"}]',
    'start: %json {"type": 5}',
    'start: %json {"$ref": "https://example.org/x"}',
    "start: <[999999]>",
    "start: a\na: a\n",
    "start: /" + "(a|b)" * 20000 + "/",
    "start: /(((a{1,999}){1,999}){1,999}){1,999}/",
    "start: " + "(" * 5000 + '"a"' + ")" * 5000,
    "start: r0\n" + "".join(f'r{i}: ("a" r{i + 1})+ "c"\n' for i in range(3000)) + 'r3000: "b"',
    "x" * 300_000,
]


@pytest.mark.parametrize("grammar", BAD, ids=lambda text: text[:24])
def test_a_bad_grammar_fails_soon_and_alone(grammar: str, engine: LlamaEngine) -> None:
    started = time.monotonic()
    results = answers(
        engine,
        ask(1, user("Who are you?"), constraint=Constraint(grammar=grammar), max_tokens=30),
        ask(2, user("How are you?")),
    )
    assert time.monotonic() - started < 60
    assert results[1].ended is not None
    assert results[1].ended.reason != "cancelled"
    failed = results[0].failed
    if failed is None:  # llguidance takes it: then the answer must have ended all the same
        assert results[0].ended is not None
    else:
        assert failed.kind is Kind.INVALID
        assert failed.message


def test_a_constrained_job_can_be_cancelled_while_its_grammar_compiles(engine: LlamaEngine) -> None:
    driver = Driver(engine).submit(ask(1, user("Hi"), constraint=Constraint(grammar=lark(PERSON))))
    engine.cancel(1)
    result = driver.run()[1]
    assert result.ended is not None
    assert result.ended.reason == "cancelled"


def test_a_grammar_is_compiled_once(engine: LlamaEngine) -> None:
    first = engine._grammars.request(Constraint(grammar=lark(PERSON)))
    assert engine._grammars.request(Constraint(grammar=lark(PERSON))) is first
    for index in range(200):
        engine._grammars.request(Constraint(grammar=f'start: "{index}"'))
    assert len(engine._grammars._compiled) <= 64


CALLS = ("__init__", "mask", "accept", "forced", "done")


@pytest.mark.parametrize("error", [Invalid("no"), ValueError("odd")], ids=["known", "bug"])
@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.parametrize("call", CALLS)
def test_a_failure_of_any_call_ends_its_request_alone(
    call: str, turn: int, error: Exception, engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = ConstraintState.__dict__[call], 0

    def fails(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == turn:
            raise error
        return real.fget(*arguments) if isinstance(real, property) else real(*arguments)

    monkeypatch.setattr(ConstraintState, call, property(fails) if isinstance(real, property) else fails)
    bound = Constraint(grammar="start: /[a-z ]{30}/")
    first, second, free = answers(
        engine,
        ask(1, user("Who are you?"), constraint=bound),
        ask(2, user("Who is it?"), constraint=bound),
        ask(3, user("How are you?")),
    )
    kind = Kind.INVALID if isinstance(error, Invalid) else Kind.INTERNAL
    failures = [result.failed.kind for result in (first, second) if result.failed is not None]
    assert failures == [kind]
    assert free.ended is not None
    assert answer(engine, user("Hi"), constraint=bound).ended is not None


class _Panic(BaseException):
    """As a panic of the Rust library, it is no `Exception`."""


class _Matcher:
    """A matcher whose next call fails."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def deep_copy(self) -> _Matcher:
        return self

    def is_error(self) -> bool:
        return False

    def fails(self, *_: object) -> Any:
        raise self._error

    compute_bitmask = compute_ff_tokens = consume_token = fails


@pytest.mark.parametrize("call", ["mask", "forced", "accept"])
def test_a_panic_of_the_library_is_a_failure_of_the_request(call: str, engine: LlamaEngine) -> None:
    state = engine._grammars.state(Constraint(grammar=""), _Matcher(_Panic("index out of bounds")))
    arguments = (1, b"a") if call == "accept" else ()
    with pytest.raises(Invalid, match="index out of bounds"):
        getattr(state, call)(*arguments)


def test_a_token_that_takes_too_long_ends_the_request(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constraint, "LONGEST_STEP", -1.0)
    failed = constrained(engine, 'start: "a" /[b-z]*/').failed
    assert failed is not None
    assert failed.kind is Kind.INVALID
    assert "one token took more than" in failed.message


def test_a_grammar_that_compiles_too_long_is_refused_and_waits_for_nothing() -> None:
    seconds, entered, leave = [0.0], threading.Event(), threading.Event()

    def compiles() -> str:
        entered.set()
        leave.wait()
        return "compiled"

    made = constraint.Compilation(clock=lambda: lambda: seconds[0])
    thread = threading.Thread(target=made.run, args=(compiles,))
    thread.start()
    entered.wait()
    assert not made.done()
    seconds[0] = constraint.LONGEST_COMPILATION + 0.1
    assert made.done()
    with pytest.raises(Invalid, match="takes more than 1 s to compile"):
        made.result()
    leave.set()
    thread.join()
    assert made.done()
    assert made.result() == "compiled"
