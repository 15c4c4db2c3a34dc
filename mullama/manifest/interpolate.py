"""Environment references: `${NAME}`, `${NAME:-default}`, `${NAME:?message}`, and `$${` for a literal `${`.

They are replaced once, in scalars of the parsed tree only, so a value cannot add structure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from operator import is_

from mullama.manifest.diagnostics import Diagnostics
from mullama.manifest.nodes import Fields, Items, Leaf, Node, Patterns, below, join
from mullama.names import JSONValue
from mullama.struct import replace

_REFERENCE = re.compile(
    r"\$\$\{"  # a literal ${
    r"|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::(?P<how>[-?])(?P<rest>(?:[^}$]|\$(?!\{))*))?\}"
    r"|(?P<open>\$\{)"
)

# Fields that cannot contain `${…}`, with `*` for any key: they are references themselves.
SECRETS = (
    ("auth", "keys", "*", "secret"),
    ("sources", "hf", "token"),
    ("observability", "webhooks", "*", "secret"),
    ("peers", "*", "key"),
    ("fleet", "hosts", "*", "key"),
    ("mcp", "*", "headers", "*"),
    ("mcp", "*", "oauth", "client_secret"),
    ("search", "key"),
    ("sync", "git", "token"),
    ("sync", "git", "deploy_key"),
    ("sync", "git", "webhook", "secret"),
)


def literal(value: JSONValue) -> JSONValue:
    """Return a value that reads as it is in a manifest: `${` in its texts, also in lists and maps, is escaped."""
    match value:
        case str():
            return value.replace("${", "$${")
        case Mapping():
            return {key: literal(item) for key, item in value.items()}
        case list() | tuple():
            return [literal(item) for item in value]
        case _:
            return value


def interpolate(root: Fields, env: Mapping[str, str], report: Diagnostics) -> Fields:
    """Return the tree with all references replaced; mistakes are added to the report."""
    done = _node(root, env, report, "", SECRETS)
    assert isinstance(done, Fields)
    return done


def fill(leaf: Leaf, env: Mapping[str, str], report: Diagnostics, path: str) -> Leaf:
    """Return a scalar with its references replaced; `loose` if it consists of one reference."""
    if not isinstance(leaf.value, str) or "${" not in leaf.value:
        return leaf
    single = _REFERENCE.fullmatch(leaf.value)
    text = _REFERENCE.sub(lambda match: _value(match, leaf, env, report, path), leaf.value)
    return replace(leaf, value=text, loose=single is not None and single["name"] is not None)


def _node(node: Node, env: Mapping[str, str], report: Diagnostics, path: str, secret: Patterns) -> Node:
    if () in secret:
        _refuse(node, report, path)
        return node
    match node:
        case Leaf():
            return fill(node, env, report, path)
        case Items(items):
            inner = below(secret, "*")
            done = tuple(_node(n, env, report, join(path, i), inner) for i, n in enumerate(items))
            return node if all(map(is_, done, items)) else Items(done, node.place)
        case Fields(entries):
            changed = {
                key: _node(child, env, report, join(path, key), below(secret, key)) for key, child in entries.items()
            }
            if all(changed[key] is entries[key] for key in changed):
                return node
            return Fields(changed, node.keys, node.place)


def _refuse(node: Node, report: Diagnostics, path: str) -> None:
    match node:
        case Leaf(str(value), place) if "${" in value:
            report.settle(
                path,
                place,
                "a secret cannot contain ${…}",
                "use {from_env: NAME}, which is read when the secret is needed",
            )
        case Fields(entries):
            for key, child in entries.items():
                _refuse(child, report, join(path, key))
        case _:
            pass


def _value(match: re.Match[str], leaf: Leaf, env: Mapping[str, str], report: Diagnostics, path: str) -> str:
    if match["open"]:
        report.settle(path, leaf.place, "`${` does not begin a reference", "write ${NAME}, or $${ for a literal ${")
        return ""
    name, how, rest = match["name"], match["how"], match["rest"]
    if name is None:
        return "${"
    value = env.get(name)
    if value or (value is not None and how is None):
        return value
    if how == "-":
        return str(rest)
    report.settle(
        path,
        leaf.place,
        f"the environment variable {name} is {'not set' if value is None else 'empty'}",
        rest or f"set it, or give a default: ${{{name}:-…}}",
    )
    return ""
