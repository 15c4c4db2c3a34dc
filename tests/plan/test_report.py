"""Plans as text, Markdown and annotations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.plan import report
from mullama.plan.steps import Action, Cause, Cost, FieldChange, Plan, Step

GIB = 1024**3


def step(subject: str, action: Action, **rest: object) -> Step:
    base: dict[str, object] = {"kind": "model", "cause": Cause.DESIRED, "cost": Cost.LIVE}
    return Step(subject=subject, action=action, **(base | rest))  # type: ignore[arg-type]


def plan(*steps: Step, warnings: tuple[str, ...] = ()) -> Plan:
    return Plan(base="a", desired="b", generation=2, steps=steps, warnings=warnings)


MIXED = plan(
    step(
        "qwen3:8b",
        Action.UPDATE,
        cost=Cost.CONTEXT,
        changes=(FieldChange(path="context.size", before=8192, after=16384, cost=Cost.CONTEXT),),
        detail="new context, no pause",
        memory_before=6 * GIB,
        memory_after=6 * GIB + 600 * 1024**2,
    ),
    step(
        "llama3.2:1b",
        Action.UPDATE,
        changes=(
            FieldChange(path="parameters.temperature", before=0.7, after=0.2, cost=Cost.LIVE),
            FieldChange(path="system", before=None, after="You answer\nbriefly.", cost=Cost.LIVE),
        ),
        detail="next request",
    ),
    step(
        "coder",
        Action.REPLACE,
        cost=Cost.WEIGHTS,
        pause=True,
        changes=(FieldChange(path="gpu.layers", before=20, after=33, cost=Cost.WEIGHTS),),
        detail="does not fit twice: pause",
    ),
    step(
        "embed",
        Action.ADD,
        cost=Cost.FILES,
        changes=(FieldChange(path="from", before=None, after="hf:a/b:Q8_0", cost=Cost.FILES),),
        bytes_download=139 * 1024**2,
        detail="pull, load at start",
    ),
    step(
        "old:7b",
        Action.REMOVE,
        cost=Cost.WEIGHTS,
        destructive=True,
        detail="not in the manifest: unload, files kept",
    ),
    step(
        "qwen3:14b",
        Action.REPAIR,
        cause=Cause.DRIFT,
        cost=Cost.WEIGHTS,
        detail="unloaded since the apply: load",
    ),
    warnings=("the file is old",),
)


def test_the_text_shows_a_plan_in_columns() -> None:
    assert [line.text for line in report.lines(MIXED)] == [
        "~ qwen3:8b     context  context.size 8192 -> 16384               +600 MiB, new context, no pause",
        "~ llama3.2:1b  live     parameters.temperature 0.7 -> 0.2        next request",
        '                        system (none) -> "You answer\\nbriefly."',
        "± coder        weights  gpu.layers 20 -> 33                      does not fit twice: pause",
        "+ embed        files    hf:a/b:Q8_0 (139 MiB)                    pull, load at start",
        "- old:7b                not in the manifest: unload, files kept",
        "! qwen3:14b    drift    unloaded since the apply: load",
        "warning: the file is old",
        "± loads its weights again",
        "3 changed (1 with a pause), 1 added, 1 removed, 1 drift. 139 MiB to download.",
    ]


def test_each_line_has_the_tone_of_its_step() -> None:
    tones = [line.tone for line in report.lines(MIXED)]
    assert tones[:7] == ["update", "update", "update", "replace", "add", "remove", "repair"]


def test_an_empty_plan_is_one_line() -> None:
    assert [line.text for line in report.lines(plan())] == ["Nothing to do."]


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        (None, "(none)"),
        (8, "8"),
        (True, "true"),
        ("q8_0", "q8_0"),
        ("", '""'),
        ("two words", '"two words"'),
        (["a", 1], '["a", 1]'),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("x" * 100, "x" * 39 + "…"),
    ],
)
def test_values_take_one_short_line(tree: object, text: str) -> None:
    assert report.value(tree) == text


@pytest.mark.parametrize(
    ("path", "after", "text"),
    [
        ("residency.ttl", 600.0, "residency.ttl 30s -> 10m"),
        ("limits.timeout", "never", "limits.timeout 30s -> never"),
        ("parameters.temperature", 0.5, "parameters.temperature 30.0 -> 0.5"),
    ],
)
def test_durations_are_written_as_in_a_manifest(path: str, after: object, text: str) -> None:
    assert report.change(FieldChange(path=path, cost=Cost.LIVE, before=30.0, after=after)) == text


def test_every_duration_of_the_manifest_is_known_by_its_name() -> None:
    def names(tree: object) -> Iterator[str]:
        for name, inner in tree.items() if isinstance(tree, dict) else ():
            if '"x-mullama-unit": "seconds"' in json.dumps(inner) and "properties" not in json.dumps(inner):
                yield name
            yield from names(inner)

    schema = json.loads((Path(__file__).parents[2] / "schemas/mullama.v1.schema.json").read_text())
    found = {name for name in names(schema) if name not in ("anyOf", "properties")}
    assert found == report._DURATIONS


@given(st.text())
def test_no_value_reaches_the_screen_with_a_control_character(text: str) -> None:
    assert report.value(text).isprintable()


def test_a_secret_field_shows_neither_side() -> None:
    item = FieldChange(path="auth.keys.ci.secret", before="x", after="y", cost=Cost.LIVE, sensitive=True)
    assert report.change(item) == "auth.keys.ci.secret changed"


def test_a_key_is_told_by_its_permissions() -> None:
    rights = {"roles": ["infer", "read"], "models": ["a", "b*"]}
    added = FieldChange(path="auth.keys.app", after=rights, cost=Cost.LIVE)
    removed = FieldChange(path="auth.keys.app", before=rights, cost=Cost.LIVE)
    assert report.change(added) == "key app added: infer, read, models a b*"
    assert report.change(removed) == "key app removed: infer, read, models a b*"


def test_a_new_model_lists_its_fields_in_every_format() -> None:
    new = step(
        "coder",
        Action.ADD,
        cost=Cost.WEIGHTS,
        changes=(
            FieldChange(path="from", after="./c.gguf", cost=Cost.FILES),
            FieldChange(path="gpu.layers", after=20, cost=Cost.WEIGHTS),
            FieldChange(path="system", after="Be brief.", cost=Cost.LIVE),
        ),
        detail="load at start",
    )
    assert [line.text for line in report.lines(plan(new))] == [
        "+ coder  weights  ./c.gguf            load at start",
        "                  gpu.layers 20",
        '                  system "Be brief."',
        "1 added.",
    ]
    text = report.markdown(plan(new), "x").splitlines()
    assert "| `+` | `coder` | weights | ./c.gguf and 2 more | load at start |" in text
    assert "<details><summary>Fields</summary>" in text
    assert "- `coder`: gpu.layers 20" in text
    assert report.summary(new) == ('./c.gguf; gpu.layers 20; system "Be brief."; load at start')


@pytest.mark.parametrize(
    ("actions", "legend"),
    [
        ((Action.UPDATE, Action.ADD), []),
        ((Action.REPLACE,), ["± loads its weights again"]),
        ((Action.RENAME, Action.REPLACE), ["± loads its weights again, → is renamed"]),
    ],
)
def test_signs_that_do_not_explain_themselves_have_a_legend(actions: tuple[Action, ...], legend: list[str]) -> None:
    shown = plan(*(step(f"m{i}", action) for i, action in enumerate(actions)))
    assert [line.text for line in report.lines(shown)][len(actions) : -1] == legend
    assert [row for row in report.markdown(shown, "x").splitlines() if row.startswith("±")] == legend


def test_a_download_of_unknown_size_is_said_to_be_unknown() -> None:
    new = step("a", Action.ADD, bytes_download=None)
    known = step("b", Action.ADD, bytes_download=1024)
    assert report.counts(plan(new)) == "1 added. An unknown amount to download."
    assert report.counts(plan(new, known)) == "2 added. 1 KiB or more to download."


def test_markdown_opens_with_the_counts_and_a_hidden_marker() -> None:
    text = report.markdown(MIXED, "workstation").splitlines()
    assert text[0] == f"**mullama** `workstation`: {report.counts(MIXED)}"
    assert text[1] == "<!-- mullama:workstation -->"
    assert "| `~` | `llama3.2:1b` | live | parameters.temperature 0.7 -&gt; 0.2 and 1 more | next request |" in text
    assert "<details><summary>Fields</summary>" in text


def test_markdown_of_text_from_a_manifest_stays_text() -> None:
    hostile = FieldChange(path="system", before=None, after="</td>|@all `x` <script>", cost=Cost.LIVE)
    text = report.markdown(plan(step("m", Action.UPDATE, changes=(hostile,))), "s--> <b>")
    assert "<script>" not in text
    assert "@all" not in text
    assert "s--> <b>" not in text.splitlines()[1]


def test_long_markdown_is_cut_with_a_note_and_closes_what_it_opened() -> None:
    changes = tuple(FieldChange(path=f"parameters.p{i}", before=0, after=1, cost=Cost.LIVE) for i in range(20))
    many = plan(*(step(f"model-{i}", Action.UPDATE, changes=changes) for i in range(200)))
    text = report.markdown(many, "s")
    assert len(text) <= report.MARKDOWN_LIMIT
    assert text.count("<details>") == text.count("</details>") == 1
    assert text.endswith("more lines: `mullama diff` shows all.")
