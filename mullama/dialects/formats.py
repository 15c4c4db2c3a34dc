"""Response formats and levels of thinking, in the forms that several dialects share."""

from __future__ import annotations

from collections.abc import Mapping

from mullama.chat.types import ResponseFormat
from mullama.dialects import schema
from mullama.dialects.fields import Body, Field, choice, unfit
from mullama.errors import Invalid
from mullama.names import JSONValue

_EFFORTS: Mapping[str, bool | str] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "max",
    "max": "max",
    "ultra": "max",
}
_EFFORT = choice("effort", _EFFORTS)


def _effort(value: JSONValue, path: str) -> bool | str:
    return _EFFORTS[_EFFORT.convert(value, path)]


def effort(name: str) -> Field[bool | str]:
    """Return a field for a level of reasoning of OpenAI or Anthropic; `none` turns it off."""
    return Field(name, _effort, _EFFORT.schema)


def _think(value: JSONValue, path: str) -> bool | str:
    if isinstance(value, bool) or value in ("low", "medium", "high", "max"):
        return value
    raise Invalid(
        f'invalid think value: {str(value)[:40]!r} (must be "high", "medium", "low", "max", true, or false)',
        field=path,
    )


THINK: Field[bool | str] = Field("think", _think, schema.one_of(True, False, "low", "medium", "high", "max"))


def json_schema(value: JSONValue, path: str) -> ResponseFormat:
    """Return the format of a JSON schema: an object, or true for any value."""
    if not isinstance(value, Mapping | bool):
        raise unfit(path, "a JSON schema")
    return ResponseFormat(kind="json_schema", schema=value)


def named_format(value: JSONValue, path: str) -> ResponseFormat | None:
    """Return the format of OpenAI's `{type: text | json_object | json_schema, …}`.

    The schema is nested in chat and not in responses.
    """
    body = Body(value, path)
    kind = body.raw("type")
    match kind:
        case "text":
            return None
        case "json_object":
            inner = body.raw("schema")
            return ResponseFormat(kind="json") if inner is None else json_schema(inner, body.at("schema"))
        case "json_schema":
            holder = body.child("json_schema") or body
            return json_schema(holder.raw("schema"), holder.at("schema"))
        case _:
            raise unfit(body.at("type"), f"text, json_object or json_schema, not {str(kind)[:40]!r}")


FORMAT_SCHEMA = schema.record("type", type=schema.one_of("text", "json_object", "json_schema"))
