"""The layer and the place from which each value of a model comes: for `config --origins` and the page of a model.

The layers are merged again with their names for each question: a load of a manifest keeps its tree and no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from mullama.manifest.diagnostics import Diagnostics
from mullama.manifest.layers import WrittenManifest, layers_of
from mullama.manifest.merge import WHOLE_IN_MODEL
from mullama.manifest.nodes import Fields, Items, Leaf, Node, is_null, join
from mullama.problems import Location
from mullama.struct import Struct

LayerKind = Literal["defaults", "hardware", "like", "model", "profile"]


class ValueOrigin(Struct, frozen=True, kw_only=True):
    """The origin of one value of a model."""

    layer: LayerKind
    name: str = ""
    """Of the profile, of the hardware profile, or of the model that `like` names."""
    place: Location
    reference: str = ""
    """The text with references to environment variables that the value replaced, "" for a value as it is written."""


def origins(written: WrittenManifest, model: str) -> Mapping[str, ValueOrigin]:
    """Return the origin of each value of a model that the manifest states, by its path, such as `context.size`.

    A list is one value. The paths are those of long forms as written: a template file has `template.file`.
    """
    found: dict[str, ValueOrigin] = {}
    profiles = {leaf.place: name for name, overlay in written.profiles.items() for _, leaf in _values(overlay)}
    for layer in layers_of(written.root, model, Diagnostics()):
        for path, node in _steps(layer.fields):
            _remove(found, path)
            if is_null(node) or isinstance(node, Fields):
                continue
            profile = profiles.get(node.place)
            found[path] = ValueOrigin(
                layer="profile" if profile else layer.kind,
                name=profile or layer.name,
                place=node.place,
                reference=node.value if isinstance(node, Leaf) and _refers(node.value) else "",  # type: ignore[arg-type]
            )
    return found


def origin_of(found: Mapping[str, ValueOrigin], path: str) -> ValueOrigin | None:
    """Return the origin of a value of the resolved model; None for one that the manifest does not state.

    A value that was made of another one, such as the text of a template file, has the origin of that one.
    """
    if (exact := found.get(path)) is not None:
        return exact
    for whole in (key for pattern in WHOLE_IN_MODEL for key in pattern):
        if path == whole or path.startswith(f"{whole}."):
            return next((origin for known, origin in found.items() if known.split(".")[0] == whole), None)
    above = path.rpartition(".")[0]
    return origin_of(found, above) if above else None


def _steps(fields: Fields, path: str = "") -> Iterator[tuple[str, Node]]:
    """Yield what a merge of these fields replaces, in its order: values, lists, nulls, and maps that replace whole."""
    for key, node in fields.entries.items():
        where = join(path, key)
        if isinstance(node, Fields):
            if (where,) in WHOLE_IN_MODEL:
                yield where, node
            yield from _steps(node, where)
        else:
            yield where, node


def _values(node: Node, path: str = "") -> Iterator[tuple[str, Leaf | Items]]:
    """Yield the values and lists of a tree."""
    if isinstance(node, Fields):
        for key, child in node.entries.items():
            yield from _values(child, join(path, key))
    else:
        yield path, node


def _remove(found: dict[str, ValueOrigin], path: str) -> None:
    """Remove what a value at this path replaces: the one there, those below it, and one in place of a map above it."""
    above = {path[:at] for at, character in enumerate(path) if character == "."}
    for known in [known for known in found if known == path or known in above or known.startswith(f"{path}.")]:
        del found[known]


def _refers(value: object) -> bool:
    return isinstance(value, str) and "${" in value.replace("$${", "")
