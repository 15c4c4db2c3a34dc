"""`ollama:[host/][namespace/]model[:tag]`: a model of a registry that speaks Ollama's protocol.

A manifest lists blobs by digest. Template, system text, parameters, messages and licence are blobs too, and become the
defaults of the model. Public models are read with an anonymous token, which is requested at the registry itself only.
"""

from __future__ import annotations

import json
import re
from typing import Final
from urllib.parse import urlencode, urlsplit

from mullama.errors import Denied, NotFound, TransferFailed, Unavailable
from mullama.names import Digest, RegistryRef, is_loopback
from mullama.sources.base import Cancelled
from mullama.sources.http_client import HttpResponse, TransientError, Web
from mullama.weights.located import Credential, Located, LocatedFile
from mullama.weights.registry_manifest import MEDIA, Layer, read_manifest

_CHALLENGE: Final = re.compile(r'(\w+)="([^"]*)"')


class Ollama:
    """Finds the files of references to a registry."""

    def __init__(self, web: Web) -> None:
        self._web = web

    def locate(self, ref: RegistryRef, cancelled: Cancelled) -> Located:
        base = f"{_scheme(ref.host)}://{ref.host}/v2/{ref.namespace}/{ref.model}"
        try:
            raw, credential = self._manifest(ref, f"{base}/manifests/{ref.tag}")
        except TransientError as error:
            raise Unavailable(f"{ref}: {error}", hint="check the network connection") from error
        listing = read_manifest(raw, str(ref))
        files = tuple(_file(layer, base, credential) for layer in listing.layers)
        return Located(source=str(ref), resolved=str(ref), files=files, revision=listing.digest)

    def pinned_files(self, ref: RegistryRef, digests: list[str]) -> tuple[LocatedFile, ...]:
        """Return the addresses of blobs. The manifest is requested for its token only."""
        base = f"{_scheme(ref.host)}://{ref.host}/v2/{ref.namespace}/{ref.model}"
        try:
            _, credential = self._manifest(ref, f"{base}/manifests/{ref.tag}")
        except (TransientError, NotFound):
            credential = Credential()  # a registry may have the blobs of a tag that it has deleted
        return tuple(
            LocatedFile(name=digest, url=f"{base}/blobs/{Digest.parse(digest)}", credential=credential)
            for digest in digests
        )

    def _manifest(self, ref: RegistryRef, url: str) -> tuple[bytes, Credential]:
        credential = Credential(looked="nowhere: registries are read anonymously")
        answer, raw = self._web.ask(url, {"Accept": MEDIA}, credential)
        if answer.status == 401:
            credential = Credential({"Authorization": f"Bearer {self._token(ref, answer)}"}, credential.looked)
            answer, raw = self._web.ask(url, {"Accept": MEDIA}, credential)
        if answer.status != 200:
            raise _refusal(ref, answer)
        return raw, credential

    def _token(self, ref: RegistryRef, answer: HttpResponse) -> str:
        """Return an anonymous token from the realm that the registry names, which must be the registry itself."""
        challenge = dict(_CHALLENGE.findall(answer.headers.get("www-authenticate", "")))
        realm = urlsplit(challenge.get("realm", ""))
        if (realm.scheme, realm.netloc) != (_scheme(ref.host), ref.host):
            raise Denied(
                f"{ref.host} refers to {realm.netloc or 'nothing'} for its tokens",
                hint="mullama requests tokens only from the registry itself",
            )
        query = urlencode({key: challenge[key] for key in ("service", "scope") if key in challenge})
        reply, raw = self._web.ask(f"{realm.scheme}://{realm.netloc}{realm.path}?{query}", {}, limit=64 * 1024)
        try:
            token = json.loads(raw)["token"] if reply.status == 200 else None
        except (ValueError, KeyError, TypeError, RecursionError):
            token = None
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]{1,8192}", token):
            raise Denied(f"{ref.host} gave no token for {ref} ({reply.status})", hint="is the model private?")
        return token


def _file(layer: Layer, base: str, credential: Credential) -> LocatedFile:
    return LocatedFile(
        name=f"{layer.role} {layer.digest[:19]}", role=layer.role, size=layer.size, digest=layer.digest,
        url=f"{base}/blobs/{layer.digest}", credential=credential,
    )  # fmt: skip


def _refusal(ref: RegistryRef, answer: HttpResponse) -> Denied | NotFound | Unavailable | TransferFailed:
    if answer.status == 404:
        return NotFound(f"{ref.host} has no model {ref.namespace}/{ref.model}:{ref.tag}", name=ref.model)
    if answer.status in (401, 403):
        return Denied(f"{ref.host} answered {answer.status} for {ref}", hint="private models cannot be pulled")
    if answer.status == 429 or answer.status >= 500:
        return Unavailable(
            f"{ref.host} answered {answer.status} for {ref}", hint="try again later", retry_after=answer.retry_after
        )
    return TransferFailed(f"{ref.host} answered {answer.status} for {ref}")


def _scheme(host: str) -> str:
    """Return http for a registry on this machine, https for any other."""
    return "http" if is_loopback(host.partition(":")[0]) else "https"
