"""Expands short forms: `chat: SPEC`, a template or a drafter as text, a Modelfile's parameters, a route to one
model, a client.

Each layer (the manifest, a profile, defaults) is expanded before layers are merged, so a short form overrides the same
fields as its long form.
"""

from __future__ import annotations

from mullama.manifest.diagnostics import Diagnostics
from mullama.manifest.key_tree import AUTOMATIC, SPELLINGS
from mullama.manifest.nodes import Fields, Items, Leaf, Node, empty, is_null, join
from mullama.manifest.spec.readers import PEER_SIGN
from mullama.problems import Location


def expand(root: Fields, report: Diagnostics, path: str = "") -> Fields:
    """Return the manifest, an included file or a profile in long forms."""
    models = root.get("models")
    if isinstance(models, Fields):
        root = root.put("models", _models(models, report, join(path, "models")))
    defaults = root.get("defaults")
    if isinstance(defaults, Fields):
        root = root.put("defaults", _model(defaults, report, join(path, "defaults")))
    routes = root.get("routes")
    if isinstance(routes, Fields):
        entries = {key: _route(node) for key, node in routes.entries.items()}
        root = root.put("routes", Fields(entries, routes.keys, routes.place))
    clients = root.get("clients")
    if isinstance(clients, Fields):
        entries = {key: _client(node) for key, node in clients.entries.items()}
        root = root.put("clients", Fields(entries, clients.keys, clients.place))
    return root


def _client(node: Node) -> Node:
    """Return a client in its long form; the name of a model is short for it."""
    is_short = isinstance(node, Leaf) and not is_null(node)
    return empty(node.place).put("model", node) if is_short else node


def _models(models: Fields, report: Diagnostics, path: str) -> Fields:
    entries: dict[str, Node] = {}
    for name, node in models.entries.items():
        if isinstance(node, Leaf) and not is_null(node):
            entries[name] = empty(node.place).put("from", node)
        else:
            entries[name] = _model(node, report, join(path, name)) if isinstance(node, Fields) else node
    return Fields(entries, models.keys, models.place)


def _model(model: Fields, report: Diagnostics, path: str) -> Fields:
    template = model.get("template")
    if isinstance(template, Leaf) and not is_null(template):
        model = model.put("template", empty(template.place).put("text", template))
    draft = model.get("draft")
    if isinstance(draft, Leaf) and not is_null(draft):
        model = model.put("draft", empty(draft.place).put("from", draft))
    parameters = model.get("parameters")
    if not isinstance(parameters, Fields):
        return model
    for name, (block, key) in SPELLINGS.items():
        given = parameters.get(name)
        if given is not None:
            model = _set_field(model, (block, key), _automatic(name, given), parameters.keys[name], report, path, name)
    return model.put("parameters", parameters.without(*SPELLINGS))


def _automatic(name: str, given: Node) -> Node:
    if isinstance(given, Leaf) and type(given.value) is int and (name, given.value) in AUTOMATIC:
        return Leaf(AUTOMATIC[name, given.value], given.place)
    return given


def _set_field(
    model: Fields, field: tuple[str, str], given: Node, at: Location, report: Diagnostics, path: str, name: str
) -> Fields:
    """Move the value of a Modelfile spelling to its field, unless the field has another value."""
    block, key = field
    inner = model.get(block)
    if inner is None or is_null(inner):
        inner = empty(given.place)
    if not isinstance(inner, Fields):
        return model
    there = inner.get(key)
    if there is None:
        return model.put(block, inner.put(key, given, at), at)
    if not _equal(there, given):
        report.add(
            f"{path}.parameters.{name}",
            at,
            f"{block}.{key} has another value at {inner.keys[key]}",
            f"{name} is a spelling of {block}.{key}: keep one of them",
        )
    return model


def _equal(a: Node, b: Node) -> bool:
    return isinstance(a, Leaf) and isinstance(b, Leaf) and a.value == b.value and type(a.value) is type(b.value)


def _route(node: Node) -> Node:
    """Return a route with its targets as a list of maps; the model's name for a route to one model without options."""
    if isinstance(node, Leaf) and isinstance(node.value, str) and PEER_SIGN in node.value:
        return empty(node.place).put("to", Items((_target(node),), node.place))
    if not isinstance(node, Fields) or (to := node.get("to")) is None or is_null(to):
        return node
    to = Items((to,), to.place) if isinstance(to, Leaf) else to
    if not isinstance(to, Items):
        return node
    to = Items(tuple(_target(n) if isinstance(n, Leaf) else n for n in to.items), to.place)
    node = node.put("to", to)
    if len(to.items) != 1:
        return node
    target, others = to.items[0], node.without("to").entries.values()
    if not isinstance(target, Fields) or any(not isinstance(n, Items) or n.items for n in others):
        return node
    model, weight = target.get("model"), target.get("weight")
    single = weight is None or (isinstance(weight, Leaf) and type(weight.value) is int and weight.value == 1)
    local = target.get("peer") is None
    return model if isinstance(model, Leaf) and len(target.entries) <= 2 and single and local else node


def _target(name: Leaf) -> Fields:
    """Return the long form of a target: MODEL, or MODEL@PEER."""
    target = empty(name.place)
    if not isinstance(name.value, str) or PEER_SIGN not in name.value:
        return target.put("model", name)
    model, _, peer = name.value.rpartition(PEER_SIGN)
    return target.put("model", Leaf(model, name.place)).put("peer", Leaf(peer, name.place))
