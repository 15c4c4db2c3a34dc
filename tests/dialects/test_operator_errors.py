"""The error of mullama's own APIs, in a reply and as the last line of a stream."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from mullama.chat.inventory import CreateModel
from mullama.dialects.native import NativeTaskStream
from mullama.dialects.operator_errors import ERROR_SCHEMA, error_reply
from mullama.errors import ManifestError, MullamaError
from mullama.problems import Location, Problem
from mullama.struct import replace
from tests.dialects.error_examples import EXAMPLES
from tests.dialects.wire import CONTEXT

BROKEN = ManifestError(
    (
        Problem("models.a.from", Location("m.yaml", 3, 5), "expected a text", "put quotes around it"),
        Problem("models.b", None, "expected a map"),
    )
)
PROBLEMS = [
    {
        "path": "models.a.from",
        "file": "m.yaml",
        "line": 3,
        "column": 5,
        "message": "expected a text",
        "hint": "put quotes around it",
    },
    {"path": "models.b", "file": None, "line": None, "column": None, "message": "expected a map", "hint": ""},
]


@pytest.mark.parametrize("error", [*EXAMPLES, BROKEN], ids=lambda e: type(e).__name__)
def test_a_reply_has_the_kind_the_message_the_hint_and_the_request_id(error: MullamaError) -> None:
    body: Any = error_reply(error, "req_1").body

    Draft202012Validator(dict(ERROR_SCHEMA)).validate(body)
    common = {name: body["error"][name] for name in ("kind", "message", "hint", "request_id")}
    assert common == {"kind": error.kind, "message": error.message, "hint": error.hint, "request_id": "req_1"}


def test_the_problems_of_a_manifest_are_in_a_reply_and_in_the_last_line_of_a_task() -> None:
    reply: Any = error_reply(BROKEN, "req_1").body
    stream = NativeTaskStream(replace(CONTEXT, operation=CreateModel(name="n")))
    [frame] = stream.fail(BROKEN)
    line: Any = frame.data

    assert reply["error"]["problems"] == PROBLEMS
    assert line["error"] == {**reply["error"], "request_id": f"req_{CONTEXT.id}"}
