"""`hf:org/repo…`: what a repository of the Hugging Face hub, or of a mirror, holds; and which of it is meant.

The library names endpoints, tokens and errors and reads the answers; the requests themselves are ours, with our
deadlines and bounds, and files are fetched and hashed by us: the library checks sizes only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

from mullama.errors import Denied, Invalid, MullamaError, NotFound, TransferFailed, Unavailable, Unsupported
from mullama.names import HubRef, repo_file
from mullama.sources.base import Cancelled
from mullama.sources.metadata_request import ask
from mullama.sources.settings import HubSettings
from mullama.sources.web import HttpResponse, TransientError, Web
from mullama.weights.choose import FileChoice, choose, choose_projector
from mullama.weights.located import Credential, Located, LocatedFile

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_REPO: Final = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
MAX_FILES: Final = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    name: str
    size: int | None
    digest: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Repository:
    name: str
    commit: str
    license: str
    entries: Mapping[str, _Entry]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundModel:
    """A repository that a search found; counts as the hub gives them, `updated` as ISO 8601 text."""

    name: str
    downloads: int = 0
    likes: int = 0
    updated: str = ""
    gated: bool = False


class HuggingFace:
    """Asks one hub. quants: wishes, best first, where the reference has none. `projector` picks the mmproj file
    of the repository instead of its weights."""

    def __init__(
        self, web: Web, settings: HubSettings, *, quants: tuple[str, ...] = (), projector: bool = False
    ) -> None:
        self._web, self._settings, self._quants, self._projector = web, settings, quants, projector

    def locate(self, ref: HubRef, cancelled: Cancelled) -> Located:
        endpoint, credential = hub_endpoint(self._settings), hub_credential(self._settings)
        repository = self._repository(ref, endpoint, credential)
        files = self._chosen(ref, repository)
        located = tuple(
            LocatedFile(
                name=name, size=repository.entries[name].size, digest=repository.entries[name].digest,
                url=_url(endpoint, ref.repo, repository.commit, name), credential=credential,
            )
            for name in files
        )  # fmt: skip
        # an '@' in a name would be read as the beginning of a revision
        resolved = HubRef(ref.repo, None if "@" in files[0] else files[0], None, repository.commit)
        return Located(
            source=str(ref), resolved=str(resolved), files=located, revision=repository.commit,
            license=repository.license,
        )  # fmt: skip

    def files(self, repo: str) -> tuple[tuple[str, int | None], ...]:
        """Name and size of every GGUF file of a repository."""
        ref = HubRef(repo)
        repository = self._repository(ref, hub_endpoint(self._settings), hub_credential(self._settings))
        found = ((entry.name, entry.size) for entry in repository.entries.values())
        return tuple(sorted((name, size) for name, size in found if name.lower().endswith(".gguf")))

    def search(self, words: str, limit: int) -> tuple[FoundModel, ...]:
        """Repositories with GGUF files that fit the words, the most fetched first."""
        endpoint, credential = hub_endpoint(self._settings), hub_credential(self._settings)
        query = urlencode({"search": words, "filter": "gguf", "sort": "downloads", "limit": limit})
        try:
            answer, raw = ask(self._web, f"{endpoint}/api/models?{query}", {}, credential)
            found = json.loads(raw) if answer.status == 200 else None
        except TransientError as error:
            raise Unavailable(f"the hub could not be asked: {error}", hint="is there a network?") from error
        except (ValueError, RecursionError) as error:
            raise TransferFailed(f"{endpoint} answered something that is not JSON") from error
        if not isinstance(found, list):
            raise Unavailable(f"{answer.host} answered {answer.status} to a search")
        return tuple(model for model in map(_found, found[:limit]) if model is not None)

    def _chosen(self, ref: HubRef, repository: _Repository) -> tuple[str, ...]:
        names = repository.entries
        try:
            if self._projector:
                return (choose_projector(names, repo=str(ref), file=ref.file),)
            quants = (ref.quant,) if ref.quant else self._quants
            choice: FileChoice = choose(names, repo=f"hf:{ref.repo}", file=ref.file, quants=quants)
        except Unsupported as error:
            twins = self._twins(ref)
            if not twins:
                raise
            raise Unsupported(error.message, hint=f"GGUF conversions of it: {', '.join(twins)}") from None
        return choice.files

    def _repository(self, ref: HubRef, endpoint: str, credential: Credential) -> _Repository:
        path = f"{endpoint}/api/models/{ref.repo}"
        if ref.revision:
            path += f"/revision/{quote(ref.revision, safe='')}"
        tree = self._ask(f"{path}?blobs=True", ref, credential)
        from huggingface_hub import ModelInfo  # slow to import, and not needed without a network

        try:
            info = ModelInfo(**tree)
            commit, siblings = info.sha or "", info.siblings or []
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise TransferFailed(f"{endpoint} describes {ref.repo} in a way that cannot be read: {error!r}") from error
        if not _COMMIT.fullmatch(commit):
            raise TransferFailed(f"{endpoint} gives the commit {commit[:60]!r} for {ref.repo}")
        if len(siblings) > MAX_FILES:
            raise TransferFailed(f"{ref.repo} has {len(siblings)} files, more than {MAX_FILES}")
        entries = {entry.name: entry for entry in map(_entry, siblings) if entry is not None}
        return _Repository(name=ref.repo, commit=commit, license=_license(info), entries=entries)

    def _ask(self, url: str, ref: HubRef, credential: Credential) -> dict[str, Any]:
        """The JSON object behind `url`; a hub that cannot be reached is `Unavailable`."""
        try:
            answer, raw = ask(self._web, url, {"Accept": "application/json"}, credential)
        except TransientError as error:
            raise Unavailable(f"{ref}: {error}", hint="is there a network?") from error
        if answer.status != 200:
            raise _refusal(answer, raw, ref, credential)
        try:
            tree = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise TransferFailed(f"{answer.host} answered something that is not JSON for {ref.repo}") from error
        if not isinstance(tree, dict):
            raise TransferFailed(f"{answer.host} answered no object for {ref.repo}")
        return tree

    def _twins(self, ref: HubRef) -> tuple[str, ...]:
        """Repositories that say they hold a GGUF conversion of this one; none when the hub does not tell."""
        endpoint, credential = hub_endpoint(self._settings), hub_credential(self._settings)
        query = f"filter=gguf&filter={quote(f'base_model:quantized:{ref.repo}', safe='')}&sort=downloads&limit=3"
        try:
            with self._web.get(f"{endpoint}/api/models?{query}", None, credential) as answer:
                found = json.loads(answer.body()) if answer.status == 200 else []
        except (TransientError, MullamaError, ValueError):
            return ()  # a hint is not worth an error of its own
        models = map(_found, found if isinstance(found, list) else ())
        return tuple(f"hf:{model.name}" for model in models if model is not None)[:3]


def pinned_files(ref: HubRef, commit: str, names: list[str], settings: HubSettings) -> tuple[LocatedFile, ...]:
    """Where the named files of a commit are, without asking the hub."""
    endpoint, credential = hub_endpoint(settings), hub_credential(settings)
    return tuple(
        LocatedFile(name=name, url=_url(endpoint, ref.repo, commit, repo_file(name)), credential=credential)
        for name in names
    )


def _entry(sibling: Any) -> _Entry | None:
    """One file of the list. A model whose name could mean something else on a disk is refused; pictures and
    the like with such names are passed by."""
    name = str(sibling.rfilename)
    try:
        repo_file(name)
    except Invalid:
        if name.lower().endswith(".gguf"):
            raise
        return None
    sha = getattr(sibling.lfs, "sha256", None) if sibling.lfs else None
    size = sibling.size
    return _Entry(
        name=name,
        size=size if isinstance(size, int) and 0 <= size < 2**50 else None,
        digest=f"sha256:{sha}" if isinstance(sha, str) and _SHA256.fullmatch(sha) else None,
    )


def _found(item: Any) -> FoundModel | None:
    """One result of a search; what is no model name is left out."""
    name = item.get("id") if isinstance(item, dict) else None
    if not isinstance(name, str) or not _REPO.fullmatch(name):
        return None

    def count(key: str) -> int:
        value = item.get(key)
        return value if isinstance(value, int) else 0

    return FoundModel(
        name=name, downloads=count("downloads"), likes=count("likes"),
        updated=str(item.get("lastModified") or item.get("createdAt") or "")[:32], gated=bool(item.get("gated")),
    )  # fmt: skip


def _license(info: Any) -> str:
    tags = info.tags or []
    return next((tag.removeprefix("license:") for tag in tags if str(tag).startswith("license:")), "")


def hub_endpoint(settings: HubSettings) -> str:
    if settings.endpoint:
        return settings.endpoint.rstrip("/")
    from huggingface_hub import constants

    return str(constants.ENDPOINT).rstrip("/")


def _url(endpoint: str, repo: str, commit: str, name: str) -> str:
    from huggingface_hub import hf_hub_url

    return str(hf_hub_url(repo, name, revision=commit, endpoint=endpoint))


def hub_credential(settings: HubSettings) -> Credential:
    """The token that the manifest names, else the one the library finds."""
    if settings.token:
        return Credential({"Authorization": f"Bearer {settings.token}"}, settings.token_from or "the manifest")
    from huggingface_hub import constants, get_token

    looked = f"HF_TOKEN and {constants.HF_TOKEN_PATH}"
    if settings.token_from:
        looked = f"{settings.token_from}, {looked}"
    token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
    return Credential({"Authorization": f"Bearer {token}"} if token else {}, looked)


def _refusal(answer: HttpResponse, raw: bytes, ref: HubRef, credential: Credential) -> MullamaError:
    """What the hub's refusal means, by the library's own reading of it."""
    from huggingface_hub import errors

    error = _library_error(answer, raw)
    had = "a token was sent" if credential.headers else "no token was found"
    looked = f"{had}; looked in {credential.looked}"
    if isinstance(error, errors.GatedRepoError):
        return Denied(f"{ref.repo} is gated: its owner must grant access", hint=f"{looked}; ask on the model's page")
    if isinstance(error, errors.DisabledRepoError):
        return Denied(f"{ref.repo} is disabled on {answer.host}")
    if isinstance(error, errors.RevisionNotFoundError):
        return NotFound(f"{ref.repo} has no revision {ref.revision!r}", name=str(ref.revision))
    if isinstance(error, errors.RepositoryNotFoundError):
        return NotFound(f"{answer.host} has no model {ref.repo}, or it is private", name=ref.repo, hint=looked)
    if answer.status in (401, 403):
        return Denied(f"{answer.host} answered {answer.status} for {ref.repo}", hint=looked)
    if answer.status == 404:
        return NotFound(f"{answer.host} has no model {ref.repo}", name=ref.repo)
    if answer.status == 429 or answer.status >= 500:
        return Unavailable(
            f"{answer.host} answered {answer.status} for {ref.repo}", hint="try again later",
            retry_after=answer.retry_after,
        )  # fmt: skip
    return TransferFailed(f"{answer.host} answered {answer.status} for {ref.repo}")


def _library_error(answer: HttpResponse, raw: bytes) -> Exception | None:
    import httpx2
    from huggingface_hub import errors
    from huggingface_hub.utils import hf_raise_for_status

    response = httpx2.Response(
        answer.status, headers=dict(answer.headers), content=raw, request=httpx2.Request("GET", answer.url)
    )
    try:
        hf_raise_for_status(response)
    except errors.HfHubHTTPError as error:
        found: Exception = error
        return found
    return None


def token_path() -> str:
    """Where the library keeps a token that `login` saves."""
    from huggingface_hub import constants

    return str(constants.HF_TOKEN_PATH)
