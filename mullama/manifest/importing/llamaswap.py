"""Imports a llama-swap configuration: commands of llama.cpp servers by model, macros, aliases, idle times."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from mullama.errors import Invalid
from mullama.manifest.importing.flags import model_of
from mullama.manifest.importing.found import Imported

_CONTAINER = re.compile(r"\b(?:docker|podman)\b")
_MACRO = re.compile(r"\$\{([A-Za-z0-9_-]+)\}")
# Settings of llama-swap itself: how it starts and reaches a server.
_OWN = frozenset(("cmd", "proxy", "checkEndpoint", "ttl", "aliases", "cmdStop", "useModelName", "name", "description",
                  "macros", "unlisted", "concurrencyLimit", "metadata"))  # fmt: skip
_TOP = frozenset(("models", "macros", "healthCheckTimeout", "logLevel", "startPort", "metricsMaxInMemory",
                  "logRequests", "logTimeFormat", "sendLoadingState", "includeAliasesInList", "hooks"))  # fmt: skip


def from_llama_swap(tree: Mapping[str, Any]) -> Imported:
    """Return the models whose command runs a llama.cpp server."""
    found = Imported()
    macros = _texts(tree.get("macros"))
    for name, entry in _map(tree.get("models")).items():
        if isinstance(entry, Mapping):
            _model(found, str(name), entry, macros)
        else:
            found.left_out.append(f"{name}: it is not a map")
    if not found.models and not found.left_out:
        raise Invalid("the file has no models", hint="is it a llama-swap configuration?")
    _preload(found, tree.get("hooks"))
    found.left_out += [f"{key} (top level)" for key in tree if key not in _TOP]
    return found


def _model(found: Imported, name: str, entry: Mapping[str, Any], macros: Mapping[str, str]) -> None:
    try:
        words = _command(str(entry.get("cmd", "")), {**macros, **_texts(entry.get("macros")), "MODEL_ID": name})
        model, names, left = model_of(words)
    except (Invalid, ValueError) as error:
        found.left_out.append(f"{name}: {error}")
        return
    ttl = entry.get("ttl")
    residency: dict[str, Any] = {"load": "on_demand"}
    if isinstance(ttl, int) and ttl > 0:
        residency["ttl"] = f"{ttl}s"
    given = entry.get("description")
    described = {"description": given} if isinstance(given, str) and given else {}
    own = found.add(name, {**described, **model, "residency": residency})
    if _CONTAINER.search(str(entry.get("cmd", ""))) and str(model["from"]).startswith("/"):
        found.left_out.append(f"{name}: {model['from']} is a path inside the container")
    for alias in (*_list(entry.get("aliases")), *names):
        if alias not in found.models:
            found.routes.setdefault(str(alias), own)
    found.left_out += [f"{name}: {argument}" for argument in left]
    found.left_out += [f"{name}: {key}" for key in entry if key not in _OWN]


def _preload(found: Imported, hooks: Any) -> None:
    """Return the models that llama-swap loads at its start."""
    for name in _list(_map(_map(hooks).get("on_startup")).get("preload")):
        if name in found.models:
            model = found.models[name]
            found.models[name] = {**model, "residency": {**model["residency"], "load": "at_start"}}


def _command(text: str, macros: Mapping[str, str]) -> list[str]:
    """Return the arguments of a llama.cpp server; raise `Invalid` for another program."""
    for _ in range(10):
        resolved = _MACRO.sub(lambda match: macros.get(match[1], match[0]), text)
        if resolved == text:
            break
        text = resolved
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    words = shlex.split(" ".join(line.rstrip("\\") for line in lines))
    for at, word in enumerate(words):
        if "llama-server" in word or "llama.cpp" in word:
            return words[at + 1 :]
    raise Invalid(f"its command does not run a llama.cpp server: {text.strip()[:60]!r}")


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else ()


def _texts(value: Any) -> dict[str, str]:
    return {str(key): str(text) for key, text in _map(value).items()}
