"""Converts trees to the typed manifest, or raises one error with all mistakes and their places.

The order: expand short forms, add included files, merge profiles, replace environment references, merge the layers of
each model, resolve paths and templates, validate types, and check the parts against each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from mullama.manifest.checks import PartialManifest, check
from mullama.manifest.diagnostics import Diagnostics
from mullama.manifest.interpolate import fill, interpolate
from mullama.manifest.key_tree import KeyTree, to_plain, trim
from mullama.manifest.layers import WrittenManifest, effective_models
from mullama.manifest.merge import LAYERS, REPLACED, add_fragment, merge, refuse_nothing
from mullama.manifest.nodes import Fields, Items, Leaf, Node, empty, is_null, join, nearest, text_of, walk
from mullama.manifest.resolve import Environment, resolve_model, resolve_settings
from mullama.manifest.shorthand import expand
from mullama.manifest.spec import Manifest, Model
from mullama.manifest.spec.compiled import fields_of
from mullama.manifest.spec.core import SchemaValidator, ValidationError
from mullama.manifest.validation_messages import explain
from mullama.names import JSONValue
from mullama.problems import Location, Problem
from mullama.struct import Struct, replace

VERSION = "v1"
_FIXED = ("mullama", "include", "profiles")
_SHAPE = KeyTree(block=Manifest)
_MODEL = KeyTree(block=Model)


class Parsed(Struct, frozen=True, kw_only=True):
    """The manifest, the place of each dotted path in it, and warnings."""

    manifest: Manifest
    places: Mapping[str, Location]
    warnings: tuple[Problem, ...] = ()
    written: WrittenManifest
    """The tree before its layers were merged, for `provenance`."""
    profiles: tuple[str, ...] = ()
    """The names of the declared profiles."""


def included(root: Node, env: Mapping[str, str], report: Diagnostics) -> list[Leaf]:
    """Return the patterns of `include` with their environment references replaced."""
    include = root.get("include") if isinstance(root, Fields) else None
    if include is None or is_null(include):
        return []
    found = include.items if isinstance(include, Items) else (include,)
    leaves = [leaf for leaf in found if isinstance(leaf, Leaf) and isinstance(leaf.value, str)]
    if len(leaves) < len(found):
        report.add("include", include.place, "expected a list of paths", "include: [models/*.yaml]")
    return [fill(leaf, env, report, "include") for leaf in leaves]


def parse(
    main: Node,
    fragments: Sequence[Node],
    *,
    profiles: Sequence[str],
    world: Environment,
    report: Diagnostics,
) -> Parsed:
    """Return the manifest of a document and its included files; raise `ManifestError` for a report with problems."""
    root = _merged(main, fragments, report)
    known = _profiles(root, report)
    overlays = _overlays(root, profiles, known, report)
    root = _with_profiles(root, overlays).without("include", "profiles")
    written = WrittenManifest(root=root, profiles=overlays)
    root = interpolate(root, world.env, report)
    models = effective_models(root, report)
    settings = merge(None, root.without("defaults", "models"))
    assert isinstance(settings, Fields)
    settings = resolve_settings(settings, world, report)
    if isinstance(declared := root.get("models"), Fields):
        done = {name: _resolved(node, join("models", name), world, report) for name, node in models.items()}
        settings = settings.put("models", Fields(done, declared.keys, declared.place), root.keys["models"])
    elif declared is not None and not is_null(declared):
        settings = settings.put("models", declared, root.keys["models"])
    parsed = _typed(root.get("defaults"), settings, _places(root, settings), written, report)
    report.check()
    return replace(parsed, profiles=tuple(known))


def _resolved(model: Node, path: str, world: Environment, report: Diagnostics) -> Node:
    return resolve_model(model, path, world, report) if isinstance(model, Fields) else model


def _places(root: Fields, settings: Fields) -> Mapping[str, Location]:
    """Return the place of each path of the merged manifest, and of `defaults` as written."""
    defaults = root.get("defaults")
    written = walk(defaults, "defaults", root.keys["defaults"]) if defaults else ()
    return dict(chain(written, walk(settings)))


def _merged(main: Node, fragments: Sequence[Node], report: Diagnostics) -> Fields:
    """Return one tree in long forms, made of the manifest and its included files."""
    root = _document(main, report)
    if (version := root.get("mullama")) is None:
        report.add("mullama", root.place, "the line `mullama: v1` is missing", f"mullama: {VERSION}")
    elif text_of(version) != VERSION:
        report.add("mullama", version.place, f"this version of mullama reads {VERSION}", f"mullama: {VERSION}")
    root = expand(root, report)
    for fragment in fragments:
        part = _document(fragment, report)
        if "mullama" in part.entries and text_of(part.entries["mullama"]) != VERSION:
            report.add("mullama", part.entries["mullama"].place, f"this version of mullama reads {VERSION}")
        root = add_fragment(root, expand(part, report), report)
    return root


def _document(node: Node, report: Diagnostics) -> Fields:
    if isinstance(node, Fields):
        trimmed = trim(node, _SHAPE, report)
        assert isinstance(trimmed, Fields)
        refuse_nothing(trimmed, report)
        return trimmed
    message = "the file is empty" if is_null(node) else "expected a map"
    report.add("", node.place, message, f"begin with `mullama: {VERSION}` and `models:`")
    return empty(node.place)


def _with_profiles(root: Fields, overlays: Mapping[str, Fields]) -> Fields:
    """Return the tree with profiles merged over it, in their order."""
    merged: Node = root
    for overlay in overlays.values():
        merged = merge(merged, overlay, REPLACED, LAYERS)
    assert isinstance(merged, Fields)
    return Fields(merged.entries, merged.keys, root.place)


def _overlays(
    root: Fields, chosen: Sequence[str], known: Mapping[str, Fields], report: Diagnostics
) -> Mapping[str, Fields]:
    """Return the chosen ones of the known profiles in long forms, in the order in which they are merged."""
    found: dict[str, Fields] = {}
    for name in chosen:
        if name not in known:
            every = f"profiles: {', '.join(sorted(known))}" if known else "the manifest has no profiles"
            hint = report.suggest(name, known) or every
            place = root.keys.get("profiles", root.place)
            report.add("profiles", place, f"there is no profile {name!r}", hint)
            continue
        found.pop(name, None)  # the last of two decides, as after two merges
        found[name] = expand(known[name], report, join("profiles", name))
    return found


def _profiles(root: Fields, report: Diagnostics) -> Mapping[str, Fields]:
    """Return the profiles that are maps, without the keys that a profile cannot change."""
    profiles, known = root.get("profiles"), {}
    if not isinstance(profiles, Fields):
        if profiles is not None and not is_null(profiles):
            report.add("profiles", profiles.place, "expected a map of profile names to fields")
        return {}
    for name, overlay in profiles.entries.items():
        path = join("profiles", name)
        if not isinstance(overlay, Fields):
            report.add(path, overlay.place, "expected a map of the fields that the profile changes")
            continue
        for key in _FIXED:
            if key in overlay.entries:
                report.add(join(path, key), overlay.keys[key], "a profile cannot change this key")
        known[name] = overlay.without(*_FIXED)
    return known


def _typed(
    defaults: Node | None,
    settings: Fields,
    places: Mapping[str, Location],
    written: WrittenManifest,
    report: Diagnostics,
) -> Parsed:
    plain = to_plain(settings, _SHAPE, report)
    assert isinstance(plain, dict)
    _check_defaults(defaults, places, report)
    draft = validate(plain, places.get, report)
    warnings: list[Problem] = []

    def fail(path: str, message: str, hint: str) -> None:
        report.add(path, nearest(path, places.get), message, hint)

    def warn(path: str, message: str, hint: str) -> None:
        warnings.append(Problem(path, nearest(path, places.get), message, hint))

    check(draft, fail, warn)
    return Parsed(manifest=draft.manifest, places=places, warnings=tuple(warnings), written=written)


def _check_defaults(defaults: Node | None, places: Mapping[str, Location], report: Diagnostics) -> None:
    """Report mistakes in `defaults`, even if no model uses them."""
    if isinstance(defaults, Fields):
        plain = to_plain(defaults.without("from", "like", "hardware", "template"), _MODEL, report, "defaults")
        assert isinstance(plain, dict)
        _validate(_validator(Model), {"from": "builtin:tiny", **plain}, ("defaults",), places.get, report)


def validate(plain: Mapping[str, Any], where: Any, report: Diagnostics) -> PartialManifest:
    """Validate each top-level block and each model separately, so that one mistake does not hide others."""
    parts: dict[str, Any] = {}
    for key, field in fields_of(Manifest).items():
        if key in plain and key not in ("models", "mullama"):
            parts[key] = _validate(SchemaValidator(field.schema), plain[key], (key,), where, report)
    models = plain.get("models", {})
    if not isinstance(models, Mapping):
        report.add("models", nearest("models", where), "expected a map of names to models")
        models = {}
    validated = {
        name: _validate(_validator(Model), tree, ("models", name), where, report) for name, tree in models.items()
    }
    parts["models"] = {name: model for name, model in validated.items() if model is not None}
    broken = [key for key, value in parts.items() if value is None]
    kept = {key: value for key, value in parts.items() if value is not None}
    return PartialManifest(
        manifest=Manifest(mullama="v1", **kept), names=models.keys(), broken=broken, suggest=report.suggest
    )


def _validator(block: Any) -> SchemaValidator:
    validator: SchemaValidator = block.__pydantic_validator__
    return validator


def _validate(validator: SchemaValidator, tree: JSONValue, at: tuple[str, ...], where: Any, report: Diagnostics) -> Any:
    try:
        return validator.validate_python(tree)
    except ValidationError as error:
        report.extend(explain(error, tree, at, where))
        return None
