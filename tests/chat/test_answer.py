"""Events fold into the answer that a client without streaming gets."""

from __future__ import annotations

from mullama.chat.answer import Fold, fold, unfold
from mullama.chat.types import (
    Completed,
    Finished,
    PromptProgress,
    Started,
    StopReason,
    TextDelta,
    ThinkingDelta,
    Timings,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    ToolEnded,
    ToolRun,
    ToolStarted,
    Usage,
)

CALL = ToolCall(id="a", name="f", arguments={"x": 1})
HEL = TokenLogprob(id=1, text="Hel", bytes=b"Hel", logprob=-0.5)


def test_choices_are_kept_apart_and_in_order() -> None:
    answer = fold(
        (
            Started(prompt_tokens=3),
            PromptProgress(done=1, total=3),
            TextDelta(text="b", choice=1),
            ThinkingDelta(text="h"),
            ThinkingDelta(text="m"),
            TextDelta(text="Hel", logprobs=(HEL,)),
            TextDelta(text="lo"),
            Finished(reason=StopReason.STOP_SEQUENCE, stop_sequence="."),
            Finished(reason=StopReason.LENGTH, choice=1),
            Completed(usage=Usage(prompt_tokens=3, completion_tokens=4), timings=Timings(total=1.0), context=(1, 2)),
        )
    )
    first, second = answer.choices
    assert (first.index, first.text, first.thinking, first.logprobs) == (0, "Hello", "hm", (HEL,))
    assert (first.reason, first.stop_sequence) == (StopReason.STOP_SEQUENCE, ".")
    assert (second.index, second.text, second.reason) == (1, "b", StopReason.LENGTH)
    assert (answer.usage.completion_tokens, answer.timings.total, answer.context) == (4, 1.0, (1, 2))


def test_a_call_counts_once_it_is_finished() -> None:
    answer = fold(
        (
            ToolCallStarted(index=0, id="a", name="f"),
            ToolCallDelta(index=0, text='{"x":1}'),
            ToolCallFinished(index=0, call=CALL),
            ToolCallStarted(index=1, id="b", name="g"),
            ToolCallDelta(index=1, text='{"x"'),
            TextDelta(text='<tool_call>{"name": "g", "arguments": {"x"'),
            Finished(reason=StopReason.LENGTH),
        )
    )
    [choice] = answer.choices
    assert choice.tool_calls == (CALL,)
    assert choice.text.startswith("<tool_call>")


def test_an_answer_can_be_looked_at_before_its_end() -> None:
    folding = Fold()
    assert folding.answer.choices == ()
    folding.feed(TextDelta(text="a"))
    assert folding.answer.choices[0].reason is StopReason.CANCELLED


def test_results_belong_to_the_calls_that_wait_for_them() -> None:
    """Some servers number the calls of each turn from 0."""
    begun = ToolStarted(id="call_0", server="docs", name="read", arguments={})
    answer = fold(
        (begun, ToolEnded(id="call_0", text="one"), TextDelta(text="And?"), begun, ToolEnded(id="call_0", text="two"))
    )
    runs = [part for part in answer.choices[0].parts if isinstance(part, ToolRun)]
    assert [run.ended.text for run in runs if run.ended] == ["one", "two"]
    assert fold(unfold(answer)).choices[0].parts == answer.choices[0].parts
