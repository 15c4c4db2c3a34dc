"""Finds the abilities and needs of a template by trial renderings, never by the words in its source.

Each trial renders one small conversation with unmistakable texts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mullama.chat.template.base import Traits
from mullama.chat.template.shape import Plain, plain_messages, plain_tools
from mullama.chat.template.thinking import effort, find_marks, think_flag
from mullama.chat.types import Message, Tool, ToolCall, text_message
from mullama.errors import Invalid
from mullama.struct import replace

TOOL = "probe_weather"
KEY, VALUE = "probe_place", "Xanadu"
IDS = ("call_0123456789abcdef", "abc123def")
LEVELS = ("low", "medium", "high", "max")

Attempt = Callable[..., str]

_USER, _AGAIN, _SYSTEM, _LATE = "Kubla?", "Alph?", "Stately.", "Measureless."
_ANSWER, _RESULT, _THOUGHT, _WORD = "Sunless.", "Pleasure-dome", "Ancestral", "caverns"
_TOOLS: list[Plain] = [
    {
        "type": "function",
        "function": {
            "name": "probe_listed",
            "description": "Lists.",
            "parameters": {
                "type": "object",
                "properties": {KEY: {"type": "string", "description": "Where."}},
                "required": [KEY],
            },
        },
    }
]

_BARE_TOOL = Tool(
    name="probe_listed",
    parameters={"type": "object", "properties": {KEY: {"type": "string"}, "probe_list": {"type": "array"}}},
)


class _Trial:
    """Renders messages under the traits found so far; None stands for a refusal."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self.traits = Traits()

    def learn(self, **traits: Any) -> None:
        self.traits = replace(self.traits, **traits)

    def text(self, *messages: Message, **options: Any) -> str | None:
        try:
            return self.must(*messages, **options)
        except Invalid:  # a template that goes out of bounds on a tiny conversation is not tried further
            return None

    def must(self, *messages: Message, **options: Any) -> str:
        options.setdefault("tools", [] if self.traits.tools_as_list else None)
        return self._attempt(plain_messages(messages, self.traits), **options)

    def shows(self, wanted: str, *messages: Message, **options: Any) -> bool:
        return wanted in (self.text(*messages, **options) or "")


def probe(attempt: Attempt, source: str) -> Traits:
    """Return the traits of a template; raise the error of a template that cannot render a plain question."""
    trial = _Trial(attempt)
    _learn_content(trial)
    _learn_roles(trial)
    _learn_tools(trial)
    _learn_thinking(trial, source)
    return trial.traits


def _learn_content(trial: _Trial) -> None:
    user = text_message("user", _USER)
    for typed, listed in ((False, False), (True, False), (False, True), (True, True)):
        trial.learn(typed_content=typed, tools_as_list=listed)
        if trial.shows(_USER, user):
            return
    trial.learn(typed_content=False, tools_as_list=False)
    trial.must(user)
    raise Invalid("the chat template does not render the user's message")


def _learn_roles(trial: _Trial) -> None:
    user, again, answer = text_message("user", _USER), text_message("user", _AGAIN), text_message("assistant", _ANSWER)
    system, late = text_message("system", _SYSTEM), text_message("system", _LATE)
    trial.learn(
        system=trial.shows(_SYSTEM, system, user),
        alternate=not trial.shows(_AGAIN, user, again),
    )
    trial.learn(
        several_system=trial.shows(_SYSTEM, system, late, user) and trial.shows(_LATE, system, late, user),
        late_system=trial.shows(_LATE, system, user, answer, late, again)
        and trial.shows(_LATE, user, late, answer, again),
    )


def _learn_tools(trial: _Trial) -> None:
    user = text_message("user", _USER)
    listed = trial.shows("probe_listed", user, tools=_TOOLS)
    bare = plain_tools((_BARE_TOOL,))
    trial.learn(tools=listed, described=listed and not trial.shows("probe_listed", user, tools=bare))
    if not _learn_call_form(trial):
        trial.learn(tool_role=trial.shows(_RESULT, user, text_message("assistant", _ANSWER), _result("")))
        return
    first, second = _call(IDS[0]), _call(IDS[0], name="probe_second")
    both = replace(first, tool_calls=first.tool_calls + second.tool_calls)
    results = (_result(IDS[0]), _result(IDS[0]))
    trial.learn(single_call=not trial.shows("probe_second", user, both, *results, tools=_TOOLS))
    thoughtful = replace(first, thinking=_THOUGHT, content=text_message("assistant", _ANSWER).content)
    refused = trial.text(user, thoughtful, results[0], tools=_TOOLS) is None
    trial.learn(thinking_or_content=refused)


def _learn_call_form(trial: _Trial) -> bool:
    """Find the ids and arguments that a call in the history needs, and its text then."""
    for short, string in ((False, False), (True, False), (False, True), (True, True)):
        form = replace(trial.traits, short_ids=short, string_arguments=string)
        with_form = _Trial(trial._attempt)
        with_form.traits = form
        text = _call_text(with_form)
        if text and _is_json_like(text):
            trial.learn(short_ids=short, string_arguments=string, call=text)
            trial.learn(tool_role=with_form.shows(_RESULT, *_history(), tools=_TOOLS))
            trial.learn(text_arguments=_shows_text(with_form))
            return True
    return False


def _shows_text(trial: _Trial) -> bool:
    """Return True if the template writes arguments that are no object, as a model may have written them."""
    trial.learn(text_arguments=True)
    [call] = _call(IDS[0]).tool_calls
    broken = Message(role="assistant", tool_calls=(replace(call, arguments=_WORD),))
    return trial.shows(_WORD, _history()[0], broken, _history()[2], tools=_TOOLS)


def _history() -> tuple[Message, ...]:
    return (text_message("user", _USER), _call(IDS[0]), _result(IDS[0]))


def _call_text(trial: _Trial) -> str:
    """Return the text between the words of the user and the result of the tool."""
    text = trial.text(*_history(), tools=_TOOLS)
    if text is None or TOOL not in text:
        text = trial.text(*_history()[:2], tools=_TOOLS, generate=False)
    if text is None or TOOL not in text or VALUE not in text:
        return ""
    start = text.rfind(_USER, 0, text.rfind(TOOL)) + len(_USER)
    end = text.find(_RESULT, start)
    return text[start : end if end >= 0 else len(text)]


def _is_json_like(text: str) -> bool:
    """Return True for text that is neither an object in Python notation nor encoded twice."""
    return f"'{KEY}': " not in text and f'\\"{KEY}' not in text


def _learn_thinking(trial: _Trial, source: str) -> None:
    marks = find_marks(source)
    if marks is None:
        return
    user = text_message("user", _USER)
    on, off = (trial.text(user, variables=think_flag(flag)) for flag in (True, False))
    trial.learn(
        thinking=marks,
        think="switch" if on != off and None not in (on, off) else "always",
        levels=_levels(trial, user),
    )


def _levels(trial: _Trial, user: Message) -> tuple[str, ...]:
    """Return the efforts that render differently; a template that prints any word knows the three usual ones."""
    texts = {level: trial.text(user, variables=think_flag(True) | effort(level)) for level in (*LEVELS, _WORD)}
    echoed = texts.pop(_WORD)
    if len({text for text in texts.values() if text is not None}) < 2:
        return ()
    if echoed is not None and _WORD in echoed:
        return LEVELS[:3]
    return tuple(level for level, text in texts.items() if text is not None)


def _call(call_id: str, name: str = TOOL) -> Message:
    return Message(role="assistant", tool_calls=(ToolCall(id=call_id, name=name, arguments={KEY: VALUE}),))


def _result(call_id: str) -> Message:
    return replace(text_message("tool", _RESULT), tool_call_id=call_id, tool_name=TOOL)
