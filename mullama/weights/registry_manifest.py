"""The manifest of a registry: layers of weights, projector, template and small texts.

Registries send such manifests, and Ollama stores have them on disk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Final

from mullama.errors import Invalid, TransferFailed, Unsupported
from mullama.names import Digest, JSONValue
from mullama.struct import Struct
from mullama.weights.stored import Defaults, FileRole

MEDIA: Final = "application/vnd.docker.distribution.manifest.v2+json"
MAX_LAYERS: Final = 64
MAX_TEXT: Final = 1024**2
_PREFIX: Final = "application/vnd.ollama.image."
_ROLES: Final[Mapping[str, FileRole]] = {
    "model": "weights", "projector": "projector", "adapter": "adapter", "draft": "draft", "template": "template",
    "prompt": "template", "system": "system", "params": "parameters", "messages": "messages", "license": "license",
}  # fmt: skip
_IGNORED: Final = ("embed",)
_NOT_GGUF: Final = ("tensor", "json")
TEXTS: Final = ("template", "system", "parameters", "messages", "license")


class Layer(Struct, frozen=True, kw_only=True):
    role: FileRole
    digest: str
    size: int


class Listing(Struct, frozen=True, kw_only=True):
    """The content of a manifest."""

    digest: str
    """The digest of the manifest itself."""
    config: Layer | None
    """Digest and size of the config of the model."""
    layers: tuple[Layer, ...]


def read_manifest(raw: bytes, name: str) -> Listing:
    """Return the content of the manifest of a model; raise `TransferFailed` that names the field."""
    try:
        tree = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise TransferFailed(f"the manifest of {name} is not JSON: {str(error)[:120]}") from None
    if not isinstance(tree, dict):
        raise TransferFailed(f"the manifest of {name} is not an object")
    if tree.get("schemaVersion") != 2:
        raise TransferFailed(f"the manifest of {name}: schemaVersion is {str(tree.get('schemaVersion'))[:40]!r}, not 2")
    layers = tree.get("layers")
    if not isinstance(layers, list) or not layers or len(layers) > MAX_LAYERS:
        many = len(layers) if isinstance(layers, list) else "no list of"
        raise TransferFailed(f"the manifest of {name}: layers holds {many} layers, 1 to {MAX_LAYERS} can be")
    found = [_layer(layer, f"{name}: layers[{number}]") for number, layer in enumerate(layers)]
    config = tree.get("config")
    return Listing(
        digest="sha256:" + hashlib.sha256(raw).hexdigest(),
        config=_blob(config, "parameters", f"{name}: config") if isinstance(config, dict) else None,
        layers=_unique(tuple(layer for layer in found if layer), name),
    )


def _unique(layers: tuple[Layer, ...], name: str) -> tuple[Layer, ...]:
    """Return every layer once; raise for a digest with two sizes."""
    sizes: dict[str, int] = {}
    for layer in layers:
        if sizes.setdefault(layer.digest, layer.size) != layer.size:
            raise TransferFailed(f"the manifest of {name} gives {layer.digest} two sizes")
    if not any(layer.role == "weights" for layer in layers):
        raise Unsupported(f"{name} has no GGUF weights", hint="it may be a cloud or a safetensors model")
    return tuple(dict.fromkeys(layers))


def _layer(value: JSONValue, what: str) -> Layer | None:
    if not isinstance(value, Mapping):
        raise TransferFailed(f"the manifest of {what} is not an object")
    media = value.get("mediaType")
    kind = media.removeprefix(_PREFIX) if isinstance(media, str) and media.startswith(_PREFIX) else ""
    if kind in _IGNORED:
        return None
    if kind in _NOT_GGUF:
        raise Unsupported(f"{what} is a {kind} layer: the model is not in GGUF form", hint="use a GGUF version of it")
    if kind not in _ROLES:
        raise TransferFailed(f"the manifest of {what}.mediaType is {str(media)[:80]!r}, which is not known")
    return _blob(value, _ROLES[kind], what)


def _blob(value: Mapping[str, JSONValue], role: FileRole, what: str) -> Layer:
    size, digest = value.get("size"), value.get("digest")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 2**50:
        raise TransferFailed(f"the manifest of {what}.size is {str(size)[:40]!r}")
    if role in TEXTS and size > MAX_TEXT:
        raise TransferFailed(f"the manifest of {what}.size is {size}, but a text may have at most {MAX_TEXT} bytes")
    try:
        return Layer(role=role, digest=Digest.parse(str(digest)).text, size=size)
    except Invalid:
        raise TransferFailed(f"the manifest of {what}.digest is {str(digest)[:80]!r}") from None


def read_defaults(texts: Sequence[tuple[FileRole, bytes]], name: str) -> Defaults:
    """Return the defaults of the model from the texts of its small layers."""
    template = system = ""
    parameters: dict[str, JSONValue] = {}
    messages: tuple[tuple[str, str], ...] = ()
    licenses: list[str] = []
    for role, raw in texts:
        match role:
            case "template":
                template = _text(raw, role, name)
            case "system":
                system = _text(raw, role, name)
            case "license":
                licenses.append(_text(raw, role, name))
            case "parameters":
                parameters = _parameters(_json(raw, role, name), name)
            case "messages":
                messages = _messages(_json(raw, role, name), name)
            case _:
                continue
    return Defaults(template=template, system=system, parameters=parameters, messages=messages, license=tuple(licenses))


def _text(raw: bytes, role: str, name: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise TransferFailed(f"the {role} layer of {name} is not UTF-8 at its byte {error.start}") from error


def _json(raw: bytes, role: str, name: str) -> JSONValue:
    try:
        value: JSONValue = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise TransferFailed(f"the {role} layer of {name} is not JSON") from error
    return value


def _parameters(value: JSONValue, name: str) -> dict[str, JSONValue]:
    if not isinstance(value, Mapping):
        raise TransferFailed(f"the parameters layer of {name} is not an object")
    for key, item in value.items():
        fine = isinstance(item, (bool, int, float, str)) or (
            isinstance(item, list) and all(isinstance(part, (str, int, float)) for part in item)
        )
        if not fine:
            raise TransferFailed(f"the parameters layer of {name}: {key[:40]} is {str(item)[:40]!r}")
    return dict(value)


def _messages(value: JSONValue, name: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, list):
        raise TransferFailed(f"the messages layer of {name} is not a list")
    found = []
    for number, message in enumerate(value):
        role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        if not isinstance(role, str) or not isinstance(content, str):
            raise TransferFailed(f"the messages layer of {name}: messages[{number}] lacks role or content")
        found.append((role, content))
    return tuple(found)
