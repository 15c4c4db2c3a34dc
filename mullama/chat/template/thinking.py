"""Finds where the reasoning of a model begins and ends: the marks of templates, and the state of a prompt."""

from __future__ import annotations

from mullama.chat.template.base import Thinking

# The last one wins where a template holds several: the plain tags are also what prompts talk about.
MARKS = (
    Thinking(open="<think>", close="</think>"),
    Thinking(open="<seed:think>", close="</seed:think>"),
    Thinking(open="<mm:think>", close="</mm:think>"),
    Thinking(open="<thinking>", close="</thinking>"),
    Thinking(open="[THINK]", close="[/THINK]"),
    Thinking(open="<|START_THINKING|>", close="<|END_THINKING|>"),
    Thinking(open="<|inner_prefix|>", close="<|inner_suffix|>"),
    Thinking(open="<|channel>thought\n", close="<channel|>"),
    Thinking(open="<|channel|>analysis<|message|>", close="<|end|>"),
)


def find_marks(source: str) -> Thinking | None:
    """Return the marks that the source of a template contains; the closing one is enough."""
    found = None
    for marks in MARKS:
        if marks.close in source and (marks.close not in ("<|end|>", "<channel|>") or _opens(marks, source)):
            found = marks
    return found


def ends_open(text: str, marks: Thinking | None) -> bool:
    """Return True if a prompt ends inside the reasoning, with only white space after its opening."""
    return marks is not None and text.rstrip().endswith(marks.open.rstrip())


def left_open(content: str, marks: Thinking | None) -> bool:
    """Return True if an answer to continue stops inside the reasoning."""
    return marks is not None and content.rfind(marks.open.rstrip()) > content.rfind(marks.close.strip())


def _opens(marks: Thinking, source: str) -> bool:
    return marks.open.rstrip() in source


def think_flag(on: bool) -> dict[str, object]:
    """Return the two names by which templates read the reasoning switch."""
    return {"enable_thinking": on, "thinking": on}


def effort(level: str) -> dict[str, object]:
    """Return the two names by which templates read the reasoning effort."""
    return {"reasoning_effort": level, "thinking_effort": level}


def nearest_level(level: str, known: tuple[str, ...]) -> str:
    """Return the level if the template knows it, else the next lower one that it knows."""
    order = ("low", "medium", "high", "max")
    if not known or level in known or level not in order:
        return level
    lower = [name for name in order[: order.index(level)] if name in known]
    return lower[-1] if lower else known[0]
