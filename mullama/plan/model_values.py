"""The values of a resolved model, each with its cost and its origin. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from mullama.errors import masked, masked_tree
from mullama.manifest.dump import with_units
from mullama.manifest.provenance import LayerKind, ValueOrigin, origin_of
from mullama.manifest.spec import Model
from mullama.manifest.tree import block_to_tree, unusual
from mullama.names import JSONValue
from mullama.plan.changes import cost_of, leaves_of
from mullama.plan.steps import Cost
from mullama.problems import Location
from mullama.struct import Struct

Layer = LayerKind | Literal["builtin", "command", "applied"]
"""`builtin`: the default of mullama. `command`: a model that a command added. `applied`: the applied manifest, where
its text is not known or has another value now."""


_ADDRESSES = ("from", "mmproj", "draft.from", "adapters")
"""The values that name sources. Other texts may have addresses that are no secret, and are shown as they are."""


class ModelValue(Struct, frozen=True, kw_only=True):
    """One value of a resolved model."""

    path: str
    """Dotted, without `models.NAME`."""
    value: JSONValue
    """With units, as a manifest spells it; secrets in addresses are masked."""
    cost: Cost
    layer: Layer
    name: str = ""
    """Of the profile, of the hardware profile, or of the model of `like`."""
    place: Location | None = None
    reference: str = ""
    """The reference to environment variables that the value replaced."""

    def tree(self) -> dict[str, Any]:
        """Return the published form."""
        return {
            "path": self.path,
            "value": self.value,
            "cost": self.cost.value,
            "layer": self.layer,
            "name": self.name,
            "file": self.place.file if self.place else None,
            "line": self.place.line if self.place else None,
            "column": self.place.column if self.place else None,
            "reference": self.reference,
        }


def model_values(
    model: Model, stated: Mapping[str, ValueOrigin] | None, text: Model | None = None, *, command: bool = False
) -> tuple[ModelValue, ...]:
    """Return every value of a model in the order of the manifest's fields.

    stated: the origins in the text of the manifest; None if it is not known. text: the model as the text declares it
    now, by default `model`. command: a command added the model.
    """
    usual = dict(leaves_of(unusual(model), ""))
    now = dict(leaves_of(block_to_tree(text), "")) if text is not None else None
    shown = dict(leaves_of(with_units(block_to_tree(model), Model), ""))
    found = []
    for path, value in leaves_of(block_to_tree(model), ""):
        origin = origin_of(stated, path) if stated is not None and (now is None or now.get(path) == value) else None
        found.append(
            ModelValue(
                path=path,
                value=masked_tree(shown[path]) if path in _ADDRESSES else shown[path],
                cost=cost_of(f"models.*.{path}"),
                layer=_layer(origin, changed=path in usual, command=command),
                name=origin.name if origin else "",
                place=origin.place if origin else None,
                reference=masked(origin.reference) if origin else "",
            )
        )
    return tuple(found)


def _layer(origin: ValueOrigin | None, *, changed: bool, command: bool) -> Layer:
    if origin is not None:
        return origin.layer
    if not changed:
        return "builtin"
    return "command" if command else "applied"
