"""Finds mistakes in the form of a client's JSON schema; the only importer of jsonschema.

A schema that names 2020-12 in `$schema` is checked against that metaschema. Any other is checked against draft 7,
extended by the keywords that 2020-12 added and by the boolean bounds of draft 4. Unknown keywords and annotations, such
as `description` and `examples`, may hold anything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from mullama.chat.constraint.schema import ENFORCED, UNENFORCED
from mullama.names import JSONValue
from mullama.struct import Struct, equality_without

if TYPE_CHECKING:
    from jsonschema import ValidationError

# Keywords whose members are schemas under names of the client's own.
_NAMED: Final = frozenset(
    ("properties", "patternProperties", "$defs", "definitions", "dependencies", "dependentSchemas")
)
# "" is the schema itself.
_CHECKED: Final = ENFORCED | UNENFORCED | _NAMED | {""}


class _Digested(Struct, frozen=True):
    """A schema as a key of the cache."""

    digest: bytes
    schema: JSONValue

    __eq__, __hash__ = equality_without("schema")


def malformed(schema: JSONValue) -> str:
    """Return the first mistake in the form of a schema, with its keyword and JSON pointer; "" for none.

    A schema of 50 properties takes about 30 ms. The result is kept by a digest of the schema, because clients send the
    same schema with every request. Bound the size of the schema before.
    """
    return _malformed(_Digested(hashlib.sha256(json.dumps(schema).encode()).digest(), schema))


@lru_cache(maxsize=64)
def _malformed(key: _Digested) -> str:
    error = next(_errors(_metaschema(key.schema), key.schema), None)
    return "" if error is None else _text(error)


def _metaschema(schema: JSONValue) -> Any:
    """Return the validator of the metaschema that the schema follows."""
    import jsonschema  # takes a third of a second, and only requests with a schema need it

    named = schema.get("$schema") if isinstance(schema, Mapping) else None
    if isinstance(named, str) and "2020-12" in named:
        return jsonschema.Draft202012Validator(jsonschema.Draft202012Validator.META_SCHEMA)
    seven = dict(jsonschema.Draft7Validator.META_SCHEMA)
    del seven["$id"]  # so "$ref": "#" leads to this copy and not to the published metaschema
    bound = {"type": ["number", "boolean"]}
    extended = {
        **seven["properties"],
        "$defs": seven["properties"]["definitions"],
        "prefixItems": {"$ref": "#/definitions/schemaArray"},
        "unevaluatedProperties": {"$ref": "#"},
        "exclusiveMinimum": bound,
        "exclusiveMaximum": bound,
    }
    return jsonschema.Draft7Validator({**seven, "properties": extended})


def _errors(metaschema: Any, schema: JSONValue) -> Iterator[ValidationError]:
    """Return the errors at keywords that are enforced or reported."""
    return (error for error in metaschema.iter_errors(schema) if _keyword(error.absolute_path) in _CHECKED)


def _keyword(path: Iterable[str | int]) -> str:
    """Return the keyword of the last schema on a path; "" for the schema itself."""
    keyword, steps = "", iter(path)
    for step in steps:
        if isinstance(step, str):
            keyword = step
            if step in _NAMED:
                next(steps, None)
    return keyword


def _text(error: ValidationError) -> str:
    pointer = "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in error.absolute_path)
    keyword = _keyword(error.absolute_path)
    return f"{keyword or 'the schema'} is malformed: {error.message[:200]} (at #{pointer})"
