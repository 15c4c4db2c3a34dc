"""Every kind of error has an exit code and lines that explain it."""

from __future__ import annotations

import pytest

from mullama.cli.app.exit_codes import MEANINGS, as_mullama_error, exit_code, explain, outcome_code
from mullama.client.errors import CLASSES
from mullama.errors import EngineFailed, Invalid, Kind, ManifestError, NotFound, Unavailable
from mullama.manifest.modelfile import parse_modelfile
from mullama.problems import Location, Problem

CODES = {
    Kind.INVALID: 4,
    Kind.NOT_FOUND: 3,
    Kind.DENIED: 7,
    Kind.CONFLICT: 10,
    Kind.REFUSED: 9,
    Kind.BUSY: 1,
    Kind.TOO_LARGE: 4,
    Kind.TRANSFER: 5,
    Kind.TIMEOUT: 6,
    Kind.UNAVAILABLE: 11,
    Kind.INTERNAL: 1,
}


@pytest.mark.parametrize("kind", Kind)
def test_each_kind_leads_to_its_documented_code(kind: Kind) -> None:
    assert exit_code(CLASSES[kind]("x")) == CODES[kind]
    assert outcome_code(kind.value) == CODES[kind]
    assert CODES[kind] in MEANINGS


@pytest.mark.parametrize(("outcome", "code"), [("applied", 0), ("partly_applied", 8), ("of a newer server", 1)])
def test_each_outcome_of_an_apply_leads_to_its_documented_code(outcome: str, code: int) -> None:
    assert outcome_code(outcome) == code


def test_an_engine_that_failed_is_not_a_missing_connection() -> None:
    assert exit_code(Unavailable("no answer")) == 11
    assert exit_code(EngineFailed("died")) == 1


def test_a_manifest_error_shows_every_problem_with_its_place() -> None:
    error = ManifestError(
        (
            Problem("models.a.contxt", Location("m.yaml", 3, 5), "unknown key", "did you mean context?"),
            Problem("models", None, "is missing"),
        )
    )
    assert explain(error) == (
        "m.yaml:3:5: models.a.contxt: unknown key (did you mean context?)",
        "models: is missing",
        "error: 2 problems in the manifest",
    )


def test_mistakes_of_a_modelfile_are_counted_as_such() -> None:
    with pytest.raises(ManifestError) as caught:
        parse_modelfile("FROM a\nPARAMETER temperature hot\nNONSENSE x\n", "Modelfile")
    assert explain(caught.value)[-1] == "error: 2 problems in the Modelfile"


def test_an_error_shows_its_message_and_its_hint() -> None:
    assert explain(NotFound("no model 'x'", near=("y",))) == ("error: no model 'x'", "hint: did you mean y?")


def test_the_last_lines_of_a_failed_engine_are_shown() -> None:
    report = "\n".join(f"line {i}" for i in range(20))
    lines = explain(EngineFailed("the worker died", report=report))
    assert lines[0] == "error: the worker died"
    assert lines[1:] == tuple(f"  | line {i}" for i in range(10, 20))


def test_no_error_can_move_the_cursor() -> None:
    assert explain(Invalid("bad \x1b[2J name\r\nrest")) == ("error: bad \\x1b[2J name", "  rest")


def test_a_text_that_is_not_utf8_is_a_mistake_of_the_caller_and_shown_with_its_surroundings() -> None:
    with pytest.raises(UnicodeEncodeError) as raised:
        ("a" * 100 + "hi\udcff" + "b" * 100).encode()
    error = as_mullama_error(raised.value)

    assert error.kind is Kind.INVALID
    assert error.message == repr("a" * 28 + "hi\udcff" + "b" * 30) + " is not UTF-8"
    assert "texts in UTF-8" in error.hint
