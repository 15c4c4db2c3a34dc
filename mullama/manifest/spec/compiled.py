"""The blocks of the manifest over pydantic's core alone, from `compiled_schemas`.

pydantic takes a third of the time of a short command to import itself and to build the blocks. Their core schemas are
therefore written to `compiled_schemas` with the documentation. A block here has the part of pydantic's interface that
mullama uses at run time. A core schema holds for one version of pydantic's core: for another one, the schemas are made
from the definitions at the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Final, Literal

from mullama.manifest.spec import readers
from mullama.manifest.spec.core import (
    PydanticKnownError,
    SchemaSerializer,
    SchemaValidator,
    ValidationError,
)
from mullama.struct import Struct

JSON = dict[str, Any]


class BlockField(Struct, frozen=True):
    """A field of a block."""

    alias: str | None
    schema: JSON
    """Its core schema."""


class _Made:
    """An attribute that is made from the core schema of a class when it is first used."""

    def __init__(self, make: Any) -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, block: object, owner: Any) -> Any:
        made = self._make(owner.__pydantic_core_schema__)
        setattr(owner, self._name, made)
        return made


def _fields(schema: JSON) -> dict[str, BlockField]:
    fields = schema["schema"]["fields"].items()
    return {name: BlockField(field.get("validation_alias"), field["schema"]) for name, field in fields}


class CompiledBlock:
    """A block of the manifest: immutable, without unknown fields, compared by value. See `values.Block`."""

    # The names under which pydantic's core keeps the values of a model.
    __slots__ = ("__dict__", "__pydantic_extra__", "__pydantic_fields_set__", "__pydantic_private__")

    __pydantic_core_schema__: ClassVar[JSON]
    __pydantic_validator__ = _Made(SchemaValidator)
    __pydantic_serializer__ = _Made(SchemaSerializer)
    model_fields = _Made(_fields)

    def __init__(self, **values: Any) -> None:
        self.__pydantic_validator__.validate_python(values, self_instance=self)

    @classmethod
    def model_validate(cls, value: object) -> Any:
        return cls.__pydantic_validator__.validate_python(value)

    def model_dump(self, *, mode: Literal["json", "python"] = "python", **options: bool) -> dict[str, Any]:
        dumped: dict[str, Any] = self.__pydantic_serializer__.to_python(self, mode=mode, **options)
        return dumped

    def model_copy(self, *, update: Mapping[str, Any] | None = None) -> Any:
        """Return a copy with some values replaced, which are not validated."""
        changed = dict(update or {})
        return _filled(type(self), {**self.__dict__, **changed}, self.model_fields_set | changed.keys())

    @property
    def model_fields_set(self) -> set[str]:
        return self.__pydantic_fields_set__  # type: ignore[attr-defined,no-any-return]

    def __setattr__(self, name: str, value: object) -> None:
        error = {"type": "frozen_instance", "loc": (name,), "input": value}
        raise ValidationError.from_exception_data(type(self).__name__, [error])  # type: ignore[list-item]

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *self.__dict__.values()))

    def __deepcopy__(self, memo: object) -> CompiledBlock:
        return self  # pydantic's core copies defaults

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"


def _filled(block: type[CompiledBlock], values: dict[str, Any], given: set[str]) -> Any:
    """Return a block of these values, which are not validated. given: the fields that count as set."""
    made = block.__new__(block)
    object.__setattr__(made, "__dict__", values)
    object.__setattr__(made, "__pydantic_fields_set__", given)
    object.__setattr__(made, "__pydantic_extra__", None)
    object.__setattr__(made, "__pydantic_private__", None)
    return made


def fields_of(block: Any) -> Mapping[str, BlockField]:
    """Return the fields of a block by name."""
    fields: Mapping[str, BlockField] = block.model_fields
    return fields


DERIVED: Final[Mapping[str, Mapping[str, Any]]] = {
    "Draft": {"source": property(readers.draft_source)},
    "Model": {
        "sources": property(readers.model_sources),
        "adapter_sources": property(readers.adapter_sources),
        "projector_source": property(readers.projector_source),
        "all_sources": property(readers.all_sources),
    },
}
"""Properties of blocks."""


class Builder:
    """Makes the blocks of `compiled_schemas`."""

    def __init__(self) -> None:
        self.blocks: dict[str, type[CompiledBlock]] = {}

    def block(self, name: str, doc: str, fields: JSON) -> JSON:
        """Make a block of fields and return its core schema."""
        kind: type[CompiledBlock] = type(name, (CompiledBlock,), {
            "__slots__": (), "__doc__": doc, "__module__": "mullama.manifest.spec", **DERIVED.get(name, {}),
        })  # fmt: skip
        config = {"title": name, "extra_fields_behavior": "forbid", "validate_by_alias": True, "validate_by_name": True}
        inner = {"type": "model-fields", "model_name": name, "computed_fields": [], "fields": fields}
        schema = {
            "type": "model", "cls": kind, "config": config, "custom_init": False, "root_model": False, "schema": inner,
        }  # fmt: skip
        kind.__pydantic_core_schema__ = schema
        self.blocks[name] = kind
        return schema

    def default(self, name: str) -> Any:
        """Return the block whose fields all have their default."""
        fields = self.blocks[name].model_fields.items()
        return _filled(self.blocks[name], {field: info.schema["default"] for field, info in fields}, set())


def bound(kind: str, **limit: Any) -> Any:
    """Return a validator that requires a bound, as those of pydantic: it is applied after a function."""
    return partial(_BOUNDS[kind], **limit)


def _at_least(value: Any, *, ge: Any) -> Any:
    if not value >= ge:
        raise PydanticKnownError("greater_than_equal", {"ge": ge})
    return value


def _more_than(value: Any, *, gt: Any) -> Any:
    if not value > gt:
        raise PydanticKnownError("greater_than", {"gt": gt})
    return value


def _at_most(value: Any, *, le: Any) -> Any:
    if not value <= le:
        raise PydanticKnownError("less_than_equal", {"le": le})
    return value


def _long_enough(value: Any, *, min_length: int) -> Any:
    if len(value) < min_length:
        raise PydanticKnownError(
            "too_short", {"field_type": "Value", "min_length": min_length, "actual_length": len(value)}
        )
    return value


_BOUNDS: dict[str, Any] = {
    "greater_than_or_equal_validator": _at_least,
    "greater_than_validator": _more_than,
    "less_than_or_equal_validator": _at_most,
    "min_length_validator": _long_enough,
}
