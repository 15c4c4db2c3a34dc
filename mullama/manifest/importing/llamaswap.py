"""Imports a llama-swap configuration: commands of llama.cpp servers by model, macros, aliases, idle times."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from mullama.errors import Invalid
from mullama.manifest.importing.flags import arguments_of, model_of
from mullama.manifest.importing.found import Imported
from mullama.manifest.importing.server_settings import add_client_keys, add_secrets, open_keys

_CONTAINER = re.compile(r"\b(?:docker|podman)\b")
_MACRO = re.compile(r"\$\{([A-Za-z0-9_-]+)\}")
_ENVIRONMENT = re.compile(r"\$\{env\.([A-Za-z_][A-Za-z0-9_]*)\}")
_OWN = frozenset(("cmd", "macros", "env", "ttl", "aliases", "description"))
_TOP = frozenset(("models", "macros", "hooks", "apiKeys", "globalTTL"))
# Settings with which llama-swap starts, reaches and stops the process of a server; mullama has no such process.
_PROCESS = frozenset(("proxy", "checkEndpoint", "cmdStop", "useModelName", "startPort", "healthCheckTimeout"))


def from_llama_swap(tree: Mapping[str, Any]) -> Imported:
    """Return the models whose command runs a llama.cpp server."""
    found = Imported()
    macros = _texts(tree.get("macros"))
    names: dict[str, str] = {}
    for name, entry in _map(tree.get("models")).items():
        if isinstance(entry, Mapping):
            _model(found, str(name), {"ttl": tree.get("globalTTL"), **entry}, macros, names)
        else:
            found.left_out.append(f"{name}: it is not a map")
    if not found.models and not found.left_out:
        raise Invalid("the file has no models", hint="is it a llama-swap configuration?")
    _preload(found, _map(tree.get("hooks")), names)
    found.add_routes()
    keys = [_ENVIRONMENT.sub(r"${\1}", str(key)) for key in _list(tree.get("apiKeys"))]
    add_client_keys(found, "apiKeys", keys)
    open_keys(found)
    found.notes += [f"{key} (top level) is not needed" for key in tree if key in _PROCESS]
    found.left_out += [f"{key} (top level)" for key in tree if key not in _TOP | _PROCESS]
    return found


def _model(
    found: Imported, name: str, entry: Mapping[str, Any], macros: Mapping[str, str], names: dict[str, str]
) -> None:
    try:
        words = _command(str(entry.get("cmd", "")), {**macros, **_texts(entry.get("macros")), "MODEL_ID": name})
        pairs = (str(item).partition("=") for item in _list(entry.get("env")))
        given, unknown = arguments_of({variable: value for variable, _, value in pairs})
        command = model_of([*given, *words])
    except (Invalid, ValueError) as error:
        found.left_out.append(f"{name}: {error}")
        return
    model, ttl = command.model, entry.get("ttl")
    residency: dict[str, Any] = {"load": "on_demand"}
    if isinstance(ttl, int) and ttl >= 0:
        residency["ttl"] = f"{ttl}s" if ttl else "never"
    elif ttl is not None:
        found.left_out.append(f"{name}: ttl {ttl}")
    text = entry.get("description")
    described = {"description": text} if isinstance(text, str) and text else {}
    own = names[name] = found.add(name, {**described, **model, "residency": residency})
    if _CONTAINER.search(str(entry.get("cmd", ""))) and str(model["from"]).startswith("/"):
        found.left_out.append(f"{name}: {model['from']} is a path inside the container")
    found.add_aliases(name, (*_list(entry.get("aliases")), *command.names), own)
    found.left_out += [f"{name}: {argument}" for argument in (*unknown, *command.left)]
    found.notes += [f"{name}: {key} is not needed" for key in entry if key in _PROCESS]
    found.left_out += [f"{name}: {key}" for key in entry if key not in _OWN | _PROCESS]
    add_secrets(found, name, command.own, own)


def _preload(found: Imported, hooks: Mapping[str, Any], names: Mapping[str, str]) -> None:
    """Apply the list of the models that llama-swap loads at its start."""
    start = _map(hooks.get("on_startup"))
    for name in map(str, _list(start.get("preload"))):
        if name in names:
            model = found.models[names[name]]
            found.models[names[name]] = {**model, "residency": {**model["residency"], "load": "at_start"}}
        else:
            found.left_out.append(f"hooks: preload of {name}, which is not imported")
    found.left_out += [f"hooks: {key}" for key in hooks if key != "on_startup"]
    found.left_out += [f"hooks: on_startup.{key}" for key in start if key != "preload"]


def _command(text: str, macros: Mapping[str, str]) -> list[str]:
    """Return the arguments of a llama.cpp server; raise `Invalid` for another program."""
    for _ in range(10):
        resolved = _MACRO.sub(lambda match: macros.get(match[1], match[0]), text)
        if resolved == text:
            break
        text = resolved
    unset = [match[0] for match in _MACRO.finditer(text) if match[1] != "PORT"]
    if unset:
        raise Invalid(f"the macro {unset[0]} is not set")
    text = _ENVIRONMENT.sub(r"${\1}", text)
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    words = shlex.split(" ".join(line.rstrip("\\") for line in lines))
    for at, word in enumerate(words):
        if "llama-server" in word or "llama.cpp" in word:
            return words[at + 1 :]
    raise Invalid(f"its command runs {words[0] if words else 'nothing'!r}, not a llama.cpp server")


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> Sequence[Any]:
    """Return a list; a single text is a list of one."""
    return value if isinstance(value, (list, tuple)) else (value,) if isinstance(value, str) else ()


def _texts(value: Any) -> dict[str, str]:
    return {str(key): str(text) for key, text in _map(value).items()}
