"""Output of a plan for people: lines of text, and Markdown for a pull request. For a CI build: `findings`.

Text of a manifest may contain any character: values are written as JSON, and control characters are escaped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Literal, assert_never

from mullama.plan.steps import Action, Cause, FieldChange, Plan, Step
from mullama.struct import Struct
from mullama.units import counted, duration_literal, printable, size

MARKDOWN_LIMIT = 60_000
_VALUE_LIMIT = 40
_GAP = "  "
_NAMED = 8  # models in one line
_MARKDOWN = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"} | {mark: f"\\{mark}" for mark in "\\`*_[]|#"}
)

_KEYS = "auth.keys."
_DURATIONS = frozenset(
    {
        "connect_timeout",
        "drain_timeout",
        "idle",
        "interval",
        "keep",
        "overlap",
        "pad",
        "queue_timeout",
        "seconds",
        "silence",
        "speech",
        "timeout",
    }
    | {"ttl", "turn", "window"}
)
"""The names of the manifest's durations."""
_SIGNS = {Action.REPLACE: "loads its weights again", Action.RENAME: "is renamed"}

Tone = Literal["add", "update", "replace", "remove", "repair", "plain"]


class Line(Struct, frozen=True):
    """One line of text, with the tone that selects its colour."""

    text: str
    tone: Tone = "plain"


# Values


def value(tree: object, field: str = "") -> str:
    """Return a value of the manifest on one line, shortened if it is long; `(none)` for None.

    field: its name; seconds of a duration are written as in a manifest.
    """
    if tree is None:
        return "(none)"
    if isinstance(tree, float) and field in _DURATIONS:
        return duration_literal(tree)
    bare = isinstance(tree, str) and bool(tree) and not any(c.isspace() or c in "\"'" for c in tree)
    text = printable(str(tree) if bare else json.dumps(tree, ensure_ascii=False))
    return text if len(text) <= _VALUE_LIMIT else text[: _VALUE_LIMIT - 1] + "…"


def change(item: FieldChange) -> str:
    """Return `context.size 8192 -> 16384`; only the path of a sensitive field, the rights of a key as a whole."""
    path = printable(item.path)
    if item.renamed_from is not None:
        name = f"key {path.removeprefix(_KEYS)}" if path.startswith(_KEYS) else path
        return f"{name} was {printable(item.renamed_from)}"
    if item.sensitive:
        return f"{path} changed"
    for rights, word in ((item.after, "added"), (item.before, "removed")):
        if isinstance(rights, Mapping) and path.startswith(_KEYS):
            models = " ".join(rights["models"])
            names = ", ".join(printable(str(name)) for name in (*rights["roles"], f"models {models}"))
            return f"key {path.removeprefix(_KEYS)} {word}: {names}"
    field = path.rpartition(".")[2]
    return f"{path} {value(item.before, field)} -> {value(item.after, field)}"


def _set(item: FieldChange) -> str:
    """Return a field of something new: `gpu.layers 20`."""
    path = printable(item.path)
    return f"{path} set" if item.sensitive else f"{path} {value(item.after, path.rpartition('.')[2])}"


# Steps


def _cost(step: Step) -> str:
    if step.cause is Cause.DRIFT:
        return "drift"
    return "" if step.action is Action.REMOVE else step.cost.value


def _details(step: Step) -> tuple[str, ...]:
    """Return the lines of the third column: the source and the set fields of a new model, the changed fields, or the
    detail."""
    if step.action is Action.ADD and step.changes:
        return (_source(step), *map(_set, step.changes[1:]))
    renamed = (f"was {printable(step.renamed_from)}",) if step.renamed_from else ()
    changes = renamed + tuple(change(item) for item in step.changes)
    return changes if step.changes else (printable(step.detail),)


def _source(step: Step) -> str:
    source = value(step.changes[0].after)
    if step.bytes_download is None:
        return f"{source} (size not known)"
    return f"{source} ({size(step.bytes_download)})" if step.bytes_download else source


def _effect(step: Step) -> str:
    """Return the last column: memory, download and method."""
    facts: list[str] = []
    if step.memory_before is not None and step.memory_after is not None:
        delta = step.memory_after - step.memory_before
        facts += [("+" if delta > 0 else "-") + size(abs(delta))] if delta else []
    if step.action is not Action.ADD and step.bytes_download:
        facts.append(f"download {size(step.bytes_download)}")
    if step.changes:
        facts.append(printable(step.detail))
    return ", ".join(fact for fact in facts if fact)


def tone(step: Step) -> Tone:
    """Return the tone of the lines of a step."""
    match step.action:
        case Action.ADD:
            return "add"
        case Action.UPDATE | Action.RENAME:
            return "update"
        case Action.REPLACE:
            return "replace"
        case Action.REMOVE:
            return "remove"
        case Action.REPAIR:
            return "repair"
        case _ as never:
            assert_never(never)


def _rows(plan: Plan) -> list[tuple[Tone, tuple[str, str, str, str]]]:
    rows: list[tuple[Tone, tuple[str, str, str, str]]] = []
    for step in plan.steps:
        sign = "!" if step.cause is Cause.DRIFT else step.action.sign
        first, *more = _details(step)
        head = f"{sign} {printable(step.subject)}"
        rows.append((tone(step), (head, _cost(step), first, _effect(step))))
        rows += [(tone(step), ("", "", what, "")) for what in more]
    return rows


def lines(plan: Plan) -> tuple[Line, ...]:
    """Return the steps in columns, then the warnings, then a summary."""
    rows = _rows(plan)
    widths = [max((len(cells[i]) for _, cells in rows), default=0) for i in range(3)]
    table = [
        Line(_GAP.join([*(cells[i].ljust(widths[i]) for i in range(3)), cells[3]]).rstrip(), tone)
        for tone, cells in rows
    ]
    warnings = [Line(f"warning: {printable(text)}") for text in _warnings(plan)]
    legend = [Line(text)] if (text := _legend(plan)) else []
    notes = [Line(printable(text)) for text in _beside(plan)]
    return (*table, *warnings, *legend, *notes, Line(counts(plan)))


def _warnings(plan: Plan) -> tuple[str, ...]:
    """Return the warnings of a plan, with the one that it is for a part of the manifest."""
    if not plan.targets:
        return plan.warnings
    part = f"only {_shown(plan.targets)} and what they need are planned: the rest of the manifest was not looked at"
    return (*plan.warnings, part)


def _legend(plan: Plan) -> str:
    """Return the meaning of the signs that do not explain themselves, of those that the plan has."""
    actions = {step.action for step in plan.steps if step.cause is Cause.DESIRED}
    return ", ".join(f"{action.sign} {word}" for action, word in _SIGNS.items() if action in actions)


def _beside(plan: Plan) -> tuple[str, ...]:
    """Return the line about models that are served and not in the manifest."""
    return (beside_line(plan.beside),) if plan.beside else ()


def beside_line(names: Sequence[str]) -> str:
    """Return `2 models beside the manifest: a, b (mullama rm NAME removes one)`."""
    return f"{counted(len(names), 'model')} beside the manifest: {_shown(names)} (mullama rm NAME removes one)"


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def counts(plan: Plan) -> str:
    """Return `3 changed (1 with a pause), 1 added, 1 removed, 1 drift. 139 MiB to download.`"""
    if plan.empty:
        return "Nothing to do."
    desired = [step for step in plan.steps if step.cause is Cause.DESIRED]
    changed = [s for s in desired if s.action in (Action.UPDATE, Action.REPLACE, Action.REPAIR)]
    pauses = sum(s.pause for s in changed)
    numbers = (
        (len(changed), f"changed ({pauses} with a pause)" if pauses else "changed"),
        (sum(s.action is Action.ADD for s in desired), "added"),
        (sum(s.action is Action.RENAME for s in desired), "renamed"),
        (sum(s.action is Action.REMOVE for s in desired), "removed"),
        (len(plan.steps) - len(desired), "drift"),
    )
    text = ", ".join(f"{number} {word}" for number, word in numbers if number) + "."
    known = sum(step.bytes_download or 0 for step in plan.steps)
    unknown = any(step.bytes_download is None for step in plan.steps)
    if known or unknown:
        amount = size(known) if known else "An unknown amount"
        text += f" {amount}{' or more' if known and unknown else ''} to download."
    return text


def summary(step: Step) -> str:
    """Return the changes and the effect of a step on one line."""
    return "; ".join(part for part in (*_details(step), _effect(step)) if part)


# Markdown


def marker(stack: str) -> str:
    """Return an HTML comment, by which a bot finds its own pull request comment to replace it."""
    return f"<!-- mullama:{stack.replace('--', '- -')} -->"


def markdown_text(text: str) -> str:
    """Return a text of one line for Markdown, without marks of its own."""
    return _cell(text)


def markdown(plan: Plan, stack: str, broken: Sequence[str] = ()) -> str:
    """Return a pull request comment of at most 60,000 characters: summary, broken rules, table, and folded fields."""
    head = [f"**mullama** `{_code(stack)}`: {counts(plan)}", marker(stack), ""]
    if broken:
        head += [f"**{counted(len(broken), 'rule')} of the policy broken**", ""]
        head += [*(f"- {_cell(text)}" for text in broken), ""]
    warnings = [f"- warning: {_cell(text)}" for text in _warnings(plan)]
    warnings += [f"- {_cell(text)}" for text in _beside(plan)]
    if plan.empty:
        return "\n".join([*head, *warnings])
    body = ["| | model | cost | change | effect |", "|---|---|---|---|---|"]
    body += [_markdown_row(step) for step in plan.steps]
    if legend := _legend(plan):
        body += ["", legend]
    folded = [text for step in plan.steps if len(step.changes) > 1 for text in _markdown_fields(step)]
    if folded:
        body += ["", "<details><summary>Fields</summary>", "", *folded, "", "</details>"]
    return _cut([*head, *body, *(["", *warnings] if warnings else [])], folded=bool(folded))


def _markdown_row(step: Step) -> str:
    sign = "!" if step.cause is Cause.DRIFT else step.action.sign
    first, *more = _details(step)
    what = _cell(first) + (f" and {len(more)} more" if more else "")
    cells = (f"`{sign}`", f"`{_code(step.subject)}`", _cost(step), what, _cell(_effect(step)))
    return "| " + " | ".join(cells) + " |"


def _markdown_fields(step: Step) -> list[str]:
    text = _set if step.action is Action.ADD else change
    return [f"- `{_code(step.subject)}`: {_cell(text(item))}" for item in step.changes]


def _cell(text: str) -> str:
    """Escape text so that it cannot end its table cell, mention a person or become HTML."""
    return printable(text).translate(_MARKDOWN)


def _code(text: str) -> str:
    return printable(text).replace("`", "'").replace("|", "\\|")


def _cut(rows: list[str], *, folded: bool) -> str:
    """Return all rows, or as many as fit and the number of the rest."""
    if sum(len(row) + 1 for row in rows) <= MARKDOWN_LIMIT:
        return "\n".join(rows)
    kept, length = 0, 0
    while length + len(rows[kept]) + 1 <= MARKDOWN_LIMIT - 200:
        length += len(rows[kept]) + 1
        kept += 1
    shown = rows[:kept]
    closing = ["", "</details>"] if folded and "<details><summary>Fields</summary>" in shown else []
    return "\n".join([*shown, *closing, "", f"… and {len(rows) - kept} more lines: `mullama diff` shows all."])
