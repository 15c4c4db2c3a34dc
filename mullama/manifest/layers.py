"""Merges the layers of each model: defaults, hardware profiles, the model of `like`, the model itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from mullama.manifest.diagnostics import Diagnostics
from mullama.manifest.merge import WHOLE_IN_MODEL, merge
from mullama.manifest.nodes import Fields, Leaf, Node, count, empty, is_null, text_of
from mullama.problems import Location
from mullama.struct import Struct

MOST_VALUES = 300_000
NOT_IN_DEFAULTS = {
    "from": "each model has its own source",
    "like": "each model has its own `like`",
    "digest": "each file has its own digest",
}
_NO_LIKE = Leaf(None, Location("", 0, 0))


def effective_models(root: Fields, report: Diagnostics) -> dict[str, Node]:
    """Return the models with their layers merged, lowest first: defaults, the model of `like`, the model itself.

    The hardware profile of a layer is merged below the layer. It replaces the profile of a lower layer.
    """
    defaults, profiles = _defaults(root, report), _profiles(root)
    models = root.get("models")
    if not isinstance(models, Fields):
        return {}
    result: dict[str, Node] = {}
    left = MOST_VALUES
    for name, node in models.entries.items():
        result[name] = _layered(name, models, defaults, profiles, report) if isinstance(node, Fields) else node
        if (left := left - count(result[name])) < 0:
            hint = "shorten defaults, profiles and the models named by `like`"
            report.add("models", models.place, f"the models have more than {MOST_VALUES:,} values together", hint)
            return {}
    return result


def _profiles(root: Fields) -> Mapping[str, Node]:
    hardware = root.get("hardware")
    profiles = hardware.get("profiles") if isinstance(hardware, Fields) else None
    return profiles.entries if isinstance(profiles, Fields) else {}


def _defaults(root: Fields, report: Diagnostics) -> Fields:
    defaults = root.get("defaults")
    if not isinstance(defaults, Fields):
        if defaults is not None and not is_null(defaults):
            report.add("defaults", defaults.place, "expected a map of model fields")
        return empty(root.place)
    for key, why in NOT_IN_DEFAULTS.items():
        if key in defaults.entries:
            report.add(f"defaults.{key}", defaults.keys[key], "this key cannot be a default", why)
    return defaults.without(*NOT_IN_DEFAULTS)


class WrittenManifest(Struct, frozen=True, kw_only=True):
    """A manifest before its layers are merged, in long forms, with its included files and the chosen profiles."""

    root: Fields
    profiles: Mapping[str, Fields]
    """The chosen profiles by name, which are merged into `root`."""


class ModelLayer(Struct, frozen=True):
    """One layer of a model, without the keys that name other layers."""

    kind: Literal["defaults", "hardware", "like", "model"]
    name: str
    """Of the hardware profile or of the model; "" for the defaults."""
    fields: Fields


def layers_of(root: Fields, name: str, report: Diagnostics) -> Sequence[ModelLayer]:
    """Return the layers of a model, lowest first; none for a model that is not there, or is no map."""
    models = root.get("models")
    if not isinstance(models, Fields) or not isinstance(models.get(name), Fields):
        return ()
    return _layers(name, models, _defaults(root, report), _profiles(root), report)


def _layered(name: str, models: Fields, defaults: Fields, profiles: Mapping[str, Node], report: Diagnostics) -> Node:
    result: Node = empty(models.entries[name].place)
    for layer in _layers(name, models, defaults, profiles, report):
        result = merge(result, layer.fields, WHOLE_IN_MODEL)
    return result


def _layers(
    name: str, models: Fields, defaults: Fields, profiles: Mapping[str, Node], report: Diagnostics
) -> list[ModelLayer]:
    own = models.entries[name]
    assert isinstance(own, Fields)
    written = [ModelLayer("defaults", "", defaults), ModelLayer("model", name, own)]
    if (pattern := _pattern(name, own, models, report)) is not None:
        written.insert(1, pattern)
    naming = [index for index, layer in enumerate(written) if "hardware" in layer.fields.entries]
    found: list[ModelLayer] = []
    for index, layer in enumerate(written):
        if naming and index == naming[-1]:
            path = f"models.{layer.name}" if layer.name else "defaults"
            profile = _hardware(layer.fields, path, profiles, report)
            if isinstance(profile, Fields):
                found.append(ModelLayer("hardware", text_of(layer.fields.get("hardware")) or "", profile))
        found.append(ModelLayer(layer.kind, layer.name, layer.fields.without("like", "hardware")))
    return found


def _pattern(name: str, own: Fields, models: Fields, report: Diagnostics) -> ModelLayer | None:
    """Return the model named by `like`; only one level is allowed."""
    like = own.get("like")
    if like is None or is_null(like):
        return None
    path, wanted = f"models.{name}.like", text_of(like)
    found = models.entries.get(wanted) if wanted else None
    if isinstance(found, Fields) and wanted != name and is_null(found.get("like") or _NO_LIKE):
        return ModelLayer("like", wanted or "", found)
    if isinstance(found, Fields):
        report.settle(
            path, like.place, f"{wanted} itself has `like`", "`like` has one level: name the other model directly"
        )
    elif wanted is None:
        report.settle(path, like.place, "expected the name of a model")
    else:
        hint = report.suggest(wanted, models.entries)
        report.settle(path, like.place, f"there is no model {wanted[:80]!r}", hint)
    # A stand-in, so that other checks do not report a missing source: only `like` is wrong.
    return ModelLayer("like", "", Fields({"from": like}, {"from": like.place}, like.place))


def _hardware(layer: Fields, path: str, profiles: Mapping[str, Node], report: Diagnostics) -> Node:
    node = layer.entries["hardware"]
    if is_null(node):
        return empty(node.place)
    wanted = text_of(node)
    profile = profiles.get(wanted) if wanted else None
    if wanted is None:
        report.add(f"{path}.hardware", node.place, "expected the name of a hardware profile")
        return empty(node.place)
    if profile is None:
        hint = report.suggest(wanted, profiles) or "see hardware.profiles"
        report.add(f"{path}.hardware", node.place, f"there is no hardware profile {wanted[:80]!r}", hint)
        return empty(node.place)
    return profile
