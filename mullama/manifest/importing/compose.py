"""Imports a Compose file: its top-level models, and services that run a llama.cpp server or Ollama."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from mullama.errors import Invalid
from mullama.manifest.importing.flags import ServerCommand, Tree, arguments_of, model_of, shown
from mullama.manifest.importing.found import Imported
from mullama.manifest.importing.ollama_service import add_settings, add_store
from mullama.manifest.importing.server_settings import add_addresses, add_secrets, open_keys, ports_of
from mullama.manifest.spec.readers import DRAFT_WORDS
from mullama.names import parse_source

# A reference without braces, and a literal dollar sign.
_DOLLAR = re.compile(r"\$(?:(\$)|([A-Za-z_][A-Za-z0-9_]*))")
_MOUNT = re.compile(r"(?P<source>(?:\$\{[^}]*\}|[^:])+):(?P<target>[^:]+)(?::.*)?")
_SERVICE = frozenset(("image", "build", "entrypoint", "command", "environment", "ports", "volumes", "secrets"))
_TOP = frozenset(("name", "version", "services", "models", "secrets"))
_IN_CONTAINER = "/run/secrets/"
_DEFAULT_PORT = "8080"


def from_compose(given: Mapping[str, Any]) -> Imported:
    """Return the models under their names in the file, and each llama.cpp service under the name of the service."""
    found = Imported()
    tree = _with_references(given)
    published: list[tuple[str, Any, str]] = []
    for name, entry in _entries(found, tree, "models"):
        _model(found, f"models.{name}", name, entry)
    for name, entry in _entries(found, tree, "services"):
        published += _service(found, name, entry, _map(tree.get("secrets")))
    if not found.models and not found.left_out:
        raise Invalid("the file has neither models nor llama.cpp services", hint="is it a Compose file?")
    if isinstance(name := tree.get("name"), str) and name:
        found.metadata["name"] = name
    found.add_routes()
    open_keys(found)
    add_addresses(found, published)
    for key in tree:
        if key not in _TOP and not key.startswith("x-"):
            (found.left_out if key == "include" else found.notes).append(f"{key} (top level) is not imported")
    return found


def _entries(found: Imported, tree: Mapping[str, Any], block: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the maps of a block; another value is left out."""
    given = tree.get(block) or {}
    if not isinstance(given, Mapping):
        found.left_out.append(f"{block}: it is not a map")
        return
    for name, entry in given.items():
        if isinstance(entry, Mapping):
            yield name, entry
        else:
            found.left_out.append(f"{block}.{name}: it is not a map")


def _model(found: Imported, where: str, name: str, entry: Mapping[str, Any]) -> None:
    spec, size = str(entry.get("model", "")), entry.get("context_size")
    known = ("model", "runtime_flags", *(("context_size",) if isinstance(size, int) else ()))
    found.left_out += [f"{where}: {key}" for key in entry if key not in known]
    if not spec.startswith(("hf.co/", "huggingface.co/")):
        found.left_out.append(f"{where}: {spec or 'it'} is in a container registry, which is not supported")
        return
    try:
        words = _words(entry.get("runtime_flags"))
        command = model_of(["-m", str(parse_source(spec)), *words])
    except (Invalid, ValueError) as error:
        found.left_out.append(f"{where}: {error}")
        return
    model = command.model
    if isinstance(size, int):
        model = {**model, "context": {**model.get("context", {}), "size": size}}
    _add(found, where, name, command, model)


def _add(found: Imported, where: str, name: str, command: ServerCommand, model: Tree) -> None:
    """Add a model with its aliases and keys."""
    own = found.add(name, model)
    found.add_aliases(where, command.names, own)
    found.left_out += [f"{where}: {argument}" for argument in command.left]
    add_secrets(found, where, command.own, own)


def _service(
    found: Imported, name: str, entry: Mapping[str, Any], secrets: Mapping[str, Any]
) -> list[tuple[str, Any, str]]:
    """Add the model of a service; return its published ports, see `add_addresses`."""
    where = f"services.{name}"
    image = str(entry.get("image", ""))
    words = [*_words(entry.get("entrypoint")), *_words(entry.get("command"))]
    provider = _map(entry.get("provider"))
    if provider.get("type") == "model":
        options = {str(key).replace("-", "_"): value for key, value in _map(provider.get("options")).items()}
        found.left_out += [f"{where}: {key}{_short(key, value)}" for key, value in entry.items() if key != "provider"]
        _model(found, where, name, options)
        return []
    if "ollama" in image:
        variables = _environment(entry.get("environment"))
        add_store(found, where, variables, _mounts(entry.get("volumes")))
        port = add_settings(found, where, variables)
        _report_keys(found, where, entry)
        return _published(where, entry, "127.0.0.1", port)
    server = next((at for at, word in enumerate(words) if "llama-server" in word), None)
    if "llama.cpp" not in image and "llama-server" not in image and server is None:
        found.notes.append(f"{where}: it runs no llama.cpp server, and is not imported")
        return []
    arguments, unknown = arguments_of(_environment(entry.get("environment")))
    found.left_out += [f"{where}: {variable}" for variable in unknown]
    _report_keys(found, where, entry)
    try:
        command = model_of([*arguments, *words[0 if server is None else server + 1 :]])
    except (Invalid, ValueError) as error:
        found.left_out.append(f"{where}: {error}")
        return []
    places = _Places(found, where, entry, secrets)
    model = places.model(command.model)
    files = ("api_key_file", "ssl_cert", "ssl_key")
    own = {key: places.path(value) if key in files else value for key, value in command.own.items()}
    if (file := own.get("api_key_file", "")).startswith("${"):  # a Compose secret of an environment variable
        own["api_key"] = ",".join(filter(None, (own.get("api_key"), file)))
        del own["api_key_file"]
    _add(found, where, name, ServerCommand(model=model, names=command.names, left=command.left, own=own), model)
    found.left_out += places.unused()
    return _published(where, entry, own.get("host", "127.0.0.1"), own.get("port", _DEFAULT_PORT))


def _report_keys(found: Imported, where: str, entry: Mapping[str, Any]) -> None:
    """Name the keys of a service that a manifest cannot express."""
    known = {*_SERVICE, "network_mode"} if entry.get("network_mode") == "host" else _SERVICE
    found.left_out += [
        f"{where}: {key}{_short(key, value)}" for key, value in entry.items() if key not in known and key[:2] != "x-"
    ]


def _published(where: str, entry: Mapping[str, Any], host: str, port: str) -> list[tuple[str, Any, str]]:
    """Return the published ports of a service that listens at this address; see `add_addresses`."""
    if entry.get("network_mode") == "host":
        return [(where, f"{host}:{port}:{port}", port)]
    return [(where, item, port) for item in ports_of(entry.get("ports"))]


class _Places:
    """The paths on this machine of the paths in a container, from the volumes and secrets of a service."""

    def __init__(self, found: Imported, where: str, entry: Mapping[str, Any], secrets: Mapping[str, Any]) -> None:
        self._found, self._where = found, where
        self._mounts = _mounts(entry.get("volumes"))
        for item in _items(entry.get("secrets")):
            source = str(item.get("source", "")) if isinstance(item, Mapping) else str(item)
            target = str(item.get("target") or source) if isinstance(item, Mapping) else source
            given = _map(secrets.get(source))
            place = f"${{{given['environment']}}}" if "environment" in given else str(given.get("file", source))
            self._mounts[target if target.startswith("/") else _IN_CONTAINER + target] = place
        self._used: set[str] = set()

    def model(self, model: Tree) -> Tree:
        """Return the model with the paths on this machine."""
        changed: Tree = {key: self.path(str(model[key])) for key in ("from", "mmproj") if key in model}
        draft = model.get("draft")
        if isinstance(draft, dict) and draft.get("from", "ngram") not in DRAFT_WORDS:
            changed["draft"] = {**draft, "from": self.path(str(draft["from"]))}
        if "file" in model.get("template", {}):
            changed["template"] = {"file": self.path(model["template"]["file"])}
        if "adapters" in model:
            changed["adapters"] = [{**item, "from": self.path(item["from"])} for item in model["adapters"]]
        return {**model, **changed}

    def path(self, path: str) -> str:
        """Return the path on this machine; one that is only in the container is left out."""
        if not path.startswith("/"):
            return path
        for target in sorted(self._mounts, key=len, reverse=True):
            if path != target and not path.startswith(target + "/"):
                continue
            self._used.add(target)
            source = self._mounts[target]
            if source.startswith((".", "/", "~", "$")):
                return f"{source.rstrip('/')}{path.removeprefix(target)}"
            break
        self._found.left_out.append(f"{self._where}: {path} is a path inside the container")
        return path

    def unused(self) -> list[str]:
        """Return the volumes and secrets that no path of the model is in."""
        return [
            f"{self._where}: {'secrets' if target.startswith(_IN_CONTAINER) else 'volumes'} {source}:{target}"
            for target, source in self._mounts.items()
            if target not in self._used
        ]


def _short(key: str, value: Any) -> str:
    """Return a scalar of a setting for a message."""
    return f" {shown(key, str(value))}" if isinstance(value, (str, int, float)) else ""


def _words(command: Any) -> list[str]:
    return [str(word) for word in command] if isinstance(command, (list, tuple)) else shlex.split(str(command or ""))


def _environment(given: Any) -> dict[str, str]:
    """Return the environment of a service: a map, or a list of `NAME=value`. A name alone is a reference."""
    if isinstance(given, Mapping):
        return {str(k): f"${{{k}}}" if value is None else _scalar(value) for k, value in given.items()}
    pairs = (str(item).partition("=") for item in _items(given))
    return {name: value if equals else f"${{{name}}}" for name, equals, value in pairs}


def _scalar(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _mounts(volumes: Any) -> dict[str, str]:
    """Return the folders or named volumes by their path in the container."""
    found = {}
    for volume in _items(volumes):
        if isinstance(volume, Mapping):
            source, target = str(volume.get("source", "")), str(volume.get("target", ""))
        elif match := _MOUNT.fullmatch(str(volume)):
            source, target = match["source"], match["target"]
        else:
            source, target = "", str(volume)
        if target:
            found[target.rstrip("/")] = source
    return found


def _with_references(value: Any) -> Any:
    """Return the tree with references to the environment in the form of a manifest."""
    if isinstance(value, Mapping):
        return {str(key): _with_references(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_references(item) for item in value]
    if isinstance(value, str) and "$" in value:
        text = _DOLLAR.sub(lambda match: "$" if match[1] else f"${{{match[2]}}}", value.replace("$${", "\0"))
        return text.replace("\0", "$${")
    return value


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []
