"""Converts the keys, certificates and published ports of llama.cpp servers to blocks of the manifest's server."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, count
from typing import Any

from mullama.errors import Invalid, masked
from mullama.manifest.addresses import parse_address
from mullama.manifest.importing.found import Imported

_ONE_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::?[-?][^}]*)?\}")
_PORT = re.compile(
    r"(?:(?P<host>\[[0-9A-Fa-f:.]+\]|[0-9]+(?:\.[0-9]+){3}|localhost)?:)??(?:(?P<published>[0-9]*):)?(?P<target>[0-9]+)(?P<udp>/udp)?(?:/tcp)?"
)


def add_secrets(found: Imported, where: str, own: Mapping[str, str], model: str) -> None:
    """Add the API keys, the token of the hub and the certificate that a server's arguments in `own` name.

    A secret in the arguments does not come into the manifest: its reference does, with a note on the next step.
    """
    source = str(found.models[model]["from"]) if model in found.models else ""
    if masked(source) != source:
        step = "write a secret of its query as from_env:NAME"
        found.notes.append(f"{where}: the manifest has the address {masked(source)}; {step}")
    if token := own.get("hf_token"):
        reference = _reference(found, where, "--hf-token", token, "HF_TOKEN")
        if found.hub.setdefault("token", reference) != reference:
            found.left_out.append(f"{where}: --hf-token ***, because sources.hf has one token")
    values = [value.strip() for value in own.get("api_key", "").split(",") if value.strip()]
    for number, value in enumerate(values, 1):
        suffix = f"-{number}" if number > 1 else ""
        variable = re.sub(r"[^A-Za-z0-9]", "_", f"API_KEY_{model}{suffix}").upper()
        _add_key(found, f"{model}{suffix}", model, _reference(found, where, "--api-key", value, variable))
    if path := own.get("api_key_file"):
        _add_key(found, f"{model}-file" if values else model, model, {"from_file": path})
        found.notes.append(f"{where}: --api-key-file is auth.keys with from_file: {path}; the file must hold one key")
    cert, key = own.get("ssl_cert"), own.get("ssl_key")
    if cert and key:
        tls = {"cert": cert, "key": key}
        if found.server.setdefault("tls", tls) != tls:
            found.left_out.append(f"{where}: --ssl-cert-file {cert}, because the server has one certificate")
    elif cert or key:
        found.left_out.append(f"{where}: --ssl-{'cert' if cert else 'key'}-file {cert or key} without its pair")


def add_client_keys(found: Imported, where: str, values: Sequence[str]) -> None:
    """Add keys for all models that are imported so far."""
    for number, value in enumerate(values):
        suffix = f"-{number + 1}" if number else ""
        variable = f"API_KEY_CLIENT{suffix.replace('-', '_')}"
        secret = _reference(found, f"{where}[{number}]", "the key", value, variable)
        for model in found.models:
            _add_key(found, f"client{suffix}", model, secret)


def _add_key(found: Imported, name: str, model: str, secret: Mapping[str, Any]) -> None:
    """Add a key for one model, or a further model of a key with the same reference."""
    for key in found.keys.values():
        if key["secret"] == secret:
            key["models"] = list(dict.fromkeys((*key["models"], model)))
            return
    unique = next(text for text in chain((name,), (f"{name}-{n}" for n in count(2))) if text not in found.keys)
    found.keys[unique] = {"secret": dict(secret), "models": [model]}


def _reference(found: Imported, where: str, option: str, value: str, variable: str) -> dict[str, str]:
    """Return the reference to a secret: the variable that it names, that of an equal secret, or `variable`."""
    match = _ONE_REFERENCE.fullmatch(value)
    if match and match[0] == f"${{{match[1]}}}":
        return {"from_env": match[1]}
    known = next((name for name, secret in found.secrets.items() if secret == value), None)
    if known is not None:
        return {"from_env": known}
    first = match[1] if match else variable
    variable = next(name for name in chain((first,), (f"{first}_{n}" for n in count(2))) if name not in found.secrets)
    found.secrets[variable] = value
    found.notes.append(
        f"{where}: {option} is from_env: {variable}, because a manifest contains no secrets; "
        f"set {variable} to the value where the server runs"
    )
    return {"from_env": variable}


def open_keys(found: Imported) -> None:
    """Finish the models of the keys. A model without a key of its own needs any key, so each key may use it."""
    if not found.keys:
        return
    owned = {model for key in found.keys.values() for model in key["models"]}
    free = [model for model in found.models if model not in owned]
    for key in found.keys.values():
        models = {*key["models"], *free}
        if models == set(found.models):
            del key["models"]
            continue
        names = [name for name in found.models if name in models]
        key["models"] = [*names, *(route for route, model in found.routes.items() if model in models)]
    found.notes += [f"{model}: it had no API key; clients need one of auth.keys" for model in free]


def add_addresses(found: Imported, published: Iterable[tuple[str, Any, str]]) -> None:
    """Add `server.listen` for the published ports: tuples of the place in the file, the port and the server's own port.

    Without keys, an address that other machines reach becomes one of the loopback interface.
    """
    listen: list[str] = []
    for where, port, own in published:
        address, remark, lost = _address(port, own, keys=bool(found.keys))
        if address and address not in listen:
            listen.append(address)
        if remark:
            (found.left_out if lost else found.notes).append(f"{where}: ports {_text_of(port)}: {remark}")
    if listen:
        found.server["listen"] = listen


def _address(port: Any, own: str, *, keys: bool) -> tuple[str, str, bool]:
    """Return the address on this machine, a remark, and whether something is lost; "" for none of the former."""
    parts = _parts(port)
    if parts is None:
        return "", "it is not one TCP port", True
    host, published, target = parts
    if target != own:
        return "", f"the server in the container listens at port {own}", True
    host = host or "0.0.0.0"
    try:
        address = parse_address(f"{host}:{published or target}")
    except Invalid as error:
        return "", error.message, True
    if not address.loopback and not keys:
        near = f"{'[::1]' if host.startswith('[') else '127.0.0.1'}:{published or target}"
        return near, f"server.listen has {near}, because an address for other machines needs auth.keys", True
    remark = "" if published else f"Compose chooses the port of this machine; server.listen has {target}"
    return str(address), remark, False


def _parts(port: Any) -> tuple[str, str, str] | None:
    """Return (host, published port, port in the container) of a short or long form; None for ranges and UDP."""
    if isinstance(port, Mapping):
        host = str(port.get("host_ip") or "")
        published, target = str(port.get("published") or ""), str(port.get("target") or "")
        if not (target.isdecimal() and (published.isdecimal() or not published)) or port.get("protocol") == "udp":
            return None
        return f"[{host}]" if ":" in host else host, published, target
    match = _PORT.fullmatch(str(port))
    if match is None or match["udp"]:
        return None
    return match["host"] or "", match["published"] or "", match["target"]


def _text_of(port: Any) -> str:
    if not isinstance(port, Mapping):
        return str(port)
    return ":".join(str(port[key]) for key in ("host_ip", "published", "target") if port.get(key))


def ports_of(value: Any) -> Sequence[Any]:
    """Return the ports of a service, which are a list; a single port is a list of one."""
    if value is None:
        return ()
    return value if isinstance(value, (list, tuple)) else (value,)
