"""The manifest of a server in a container: it listens on all addresses, and its secrets are environment variables."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from mullama.errors import Refused, Unsupported, masked
from mullama.export.base import ExportInput, gpu_numbers
from mullama.export.secrets import SecretVariable, with_variables
from mullama.manifest.addresses import TcpAddress, parse_address
from mullama.manifest.dump import manifest_text
from mullama.manifest.spec import Manifest, Server
from mullama.names import LOCK_NAME, PathRef, is_loopback, parse_source
from mullama.struct import Struct

CONFIG = "/etc/mullama"
"""Folder of the manifest in the container."""
DATA = "/var/lib/mullama"
"""Volume of the container: weights, revisions, logs."""
TLS = "/run/mullama-tls"
"""Folder of the certificate and its key in the container."""
WEIGHTS = "/run/mullama-weights"
"""Folder of a volume with weights in the container."""
USER = 10001
"""The user of the image."""
STOP_MARGIN = 30
"""Seconds between the end of the drain and the end of the process, for workers and open files."""

_SECRET_HINT = "write it as from_env:NAME in the query of the address, or as a token by reference"


class ContainerParts(Struct, frozen=True, kw_only=True):
    """The manifest of a container and what the container needs with it."""

    manifest: Manifest
    port: int
    variables: tuple[SecretVariable, ...]
    weights: tuple[str, ...]
    """Absolute paths of the local files that models name, the same in the container."""
    authorities: tuple[str, ...]
    """Absolute paths of the certificate authorities of peers, the same in the container."""
    tls: dict[str, str]
    """Absolute path here of each file in `TLS`, by its name there."""
    notes: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """Absolute paths of the files that are at the same path in the container."""
        return tuple(sorted({*self.weights, *self.authorities}))

    @property
    def text(self) -> str:
        """The text of the manifest."""
        return manifest_text(self.manifest, defaults=False)


def stop_seconds(manifest: Manifest) -> int:
    """Return the seconds that a stop may take: the longest drain of a model, and a margin."""
    return int(max((model.rollout.drain_timeout for model in manifest.models.values()), default=0)) + STOP_MARGIN


def container_parts(given: ExportInput, host_names: tuple[str, ...] = ()) -> ContainerParts:
    """Return the manifest of the container. host_names: further names by which clients reach the server.

    Raises `Refused` without API keys, because a container listens on all addresses, and for secrets in addresses.
    """
    manifest, notes = given.manifest, list[str]()
    if not manifest.auth.keys:
        raise Refused(
            "auth.keys is empty, and the server of a container listens on all addresses",
            hint="declare a key: auth: {keys: {team: {secret: {from_env: MULLAMA_KEY}}}}",
        )
    _require_no_secrets(manifest)
    manifest, variables = with_variables(manifest)
    server, tls = manifest.server, dict[str, str]()
    if server.tls is not None:
        tls = {"tls.crt": server.tls.cert, "tls.key": server.tls.key}
        tls |= {"ca.crt": server.tls.client_ca} if server.tls.client_ca else {}
        ca = f"{TLS}/ca.crt" if server.tls.client_ca else None
        inside = server.tls.model_copy(update={"cert": f"{TLS}/tls.crt", "key": f"{TLS}/tls.key", "client_ca": ca})
        server = server.model_copy(update={"tls": inside})
    port = _port(manifest)
    hosts = (*server.allowed_hosts, *(name for name in host_names if name not in server.allowed_hosts))
    server = server.model_copy(update={"listen": (f"0.0.0.0:{port}",), "allowed_hosts": hosts})
    stores = manifest.sources.stores
    if stores.gguf:
        notes.append("sources.stores.gguf is left out: the container does not have its folders")
    own = (WEIGHTS,) if given.options.weights_image else ()
    stores = stores.model_copy(update={"huggingface": "never", "ollama": "never", "gguf": own})
    sources = manifest.sources.model_copy(update={"stores": stores})
    if manifest.sync.git is not None:
        notes += _git_notes(manifest)
    for name, peer in manifest.peers.items():
        if is_loopback(urlsplit(peer.url).hostname or ""):
            notes.append(f"peers.{name}.url: in a container, {peer.url} is the container itself")
    for name, tools in manifest.mcp.items():
        if tools.url is not None and is_loopback(urlsplit(tools.url).hostname or ""):
            notes.append(f"mcp.{name}.url: in a container, {tools.url} is the container itself")
        elif tools.from_host is not None:
            notes.append(f"mcp.{name}.from_host: the container needs the command, and /etc/mullama/mcp.json with it")
    engine = manifest.search.url if manifest.search is not None else None
    if engine is not None and is_loopback(urlsplit(engine).hostname or ""):
        notes.append(f"search.url: in a container, {engine} is the container itself")
    scaled = [name for name, model in manifest.models.items() if model.scale is not None]
    if scaled:
        notes.append(f"models.{scaled[0]}.scale is left out: a server has one replica of each model")
    models = {name: model.model_copy(update={"scale": None}) for name, model in manifest.models.items()}
    manifest = manifest.model_copy(update={"server": server, "sources": sources, "models": models})
    return ContainerParts(
        manifest=manifest, port=port, variables=variables,
        weights=local_files(manifest), tls=tls, notes=tuple(notes),
        authorities=tuple(sorted({peer.ca_file for peer in manifest.peers.values() if peer.ca_file})),
    )  # fmt: skip


def require_no_files(parts: ContainerParts, place: str) -> None:
    """Raise `Unsupported` for models with files of this machine. place: the container, for the message."""
    if parts.weights:
        raise Unsupported(
            f"{place} does not have {parts.weights[0]}, which a model names",
            hint="name a repository or an https: address, or a file of a weights image with --weights-image",
        )
    if parts.authorities:
        raise Unsupported(
            f"{place} does not have {parts.authorities[0]}, which peers.*.ca_file names",
            hint="leave ca_file out, and use an image whose system has the authority",
        )


def config_files(parts: ContainerParts, lock: str | None) -> dict[str, str]:
    """Return the texts of the folder `CONFIG` by name: the manifest, and the lock file next to it."""
    return {"mullama.yaml": parts.text, **({LOCK_NAME: lock} if lock is not None else {})}


def _port(manifest: Manifest) -> int:
    """Return the port of the first TCP address of `server.listen`; the usual port without one, or for port 0."""
    addresses = map(parse_address, (*manifest.server.listen, *Server().listen))
    return next(address.port for address in addresses if isinstance(address, TcpAddress) and address.port)


def _require_no_secrets(manifest: Manifest) -> None:
    git = manifest.sync.git
    for address in (*sources_of(manifest), *((git.url,) if git else ())):
        if masked(address) != address:
            raise Refused(
                f"the address {masked(address)} has a secret, which an export would write into a file",
                hint=_SECRET_HINT,
            )


def sources_of(manifest: Manifest) -> Iterator[str]:
    """Yield the source of each file that a model needs."""
    for model in manifest.models.values():
        yield from model.all_sources


def local_files(manifest: Manifest) -> tuple[str, ...]:
    """Return the absolute paths of the files that models name, sorted."""
    return tuple(sorted({ref.path for ref in map(parse_source, sources_of(manifest)) if isinstance(ref, PathRef)}))


def _git_notes(manifest: Manifest) -> Iterator[str]:
    git = manifest.sync.git
    assert git is not None
    signers = git.verify.ssh_signers if git.verify else None
    for field, path in (("known_hosts", git.known_hosts), ("verify.ssh_signers", signers)):
        if path:
            yield f"sync.git.{field}: mount {path} at the same path in the container"


def gpus_of(given: ExportInput) -> int:
    """Return the number of GPUs of the options; without it, the number that the device maps of the models name."""
    if given.options.gpus is not None:
        return given.options.gpus
    numbers = [0]
    for model in given.manifest.models.values():
        layers = model.gpu.layers
        numbers += [number + 1 for number in gpu_numbers(model)]
        numbers += [1] if layers == "all" or (isinstance(layers, int) and layers > 0) else []
    return max(numbers)
