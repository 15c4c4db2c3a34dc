"""`hf:org/repo…`: the files of a repository of the Hugging Face hub, or of a mirror; and searches of the hub.

The hub's library knows its endpoints, tokens, answers and errors. Its requests go through `Web`, with our deadlines,
bounds and rules for redirects. Files are downloaded and hashed by us, because the library checks their sizes only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from itertools import islice
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2

from mullama.errors import Denied, Invalid, MullamaError, NotFound, TransferFailed, Unavailable, Unsupported, masked
from mullama.names import HubRef, repo_file
from mullama.sources.base import Cancelled
from mullama.sources.http_client import RETRY_STATUS, HttpResponse, TransientError, Web, open_web
from mullama.sources.settings import HubSettings, Settings
from mullama.struct import Struct, replace
from mullama.weights.choose import FileChoice, choose, choose_projector, role
from mullama.weights.located import Credential, Located, LocatedFile

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_REPO: Final = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
MAX_FILES: Final = 20_000


class Repository(Struct, frozen=True, kw_only=True):
    """The description of a repository by the hub."""

    name: str
    downloads: int = 0
    likes: int = 0
    updated: str = ""
    """The time of the last commit, or of the creation, in ISO 8601."""
    gated: bool = False
    license: str = ""
    task: str = ""
    files: tuple[tuple[str, int | None], ...] = ()
    """Name and bytes of each GGUF file; None where the hub gives no size."""


class _File(Struct, frozen=True, kw_only=True):
    size: int | None
    digest: str | None


class HuggingFace:
    """Finds the files of references to one hub."""

    def __init__(
        self, web: Web, settings: HubSettings, *, quants: tuple[str, ...] = (), wanted: str = "weights"
    ) -> None:
        """quants: the preferred quantisations, best first, for a reference without one.

        wanted: `weights` with the projector of the repository, `text` for the weights alone, or `projector` for the
        projector alone.
        """
        self._web, self._settings, self._quants, self._wanted = web, settings, quants, wanted

    def locate(self, ref: HubRef, cancelled: Cancelled) -> Located:
        info = _model_info(self._web, self._settings, ref)
        commit, files = str(info.sha or ""), _files(info)
        if not _COMMIT.fullmatch(commit):
            raise TransferFailed(f"{hub_endpoint(self._settings)} returned the commit {commit[:60]!r} for {ref.repo}")
        names = self._choose(ref, files)
        beside = self._projector(ref, names[0], files)
        located = tuple(
            replace(
                file, size=files[file.name].size, digest=files[file.name].digest,
                role="projector" if file.name == beside else "weights",
            )
            for file in pinned_files(ref, commit, [*names, *((beside,) if beside else ())], self._settings)
        )  # fmt: skip
        # An "@" in a name would be read as the beginning of a revision.
        resolved = HubRef(ref.repo, None if "@" in names[0] else names[0], None, commit)
        return Located(source=str(ref), resolved=str(resolved), files=located, revision=commit, license=_license(info))

    def _projector(self, ref: HubRef, chosen: str, files: Mapping[str, _File]) -> str | None:
        """Return the projector of the repository, where it is wanted beside the chosen weights."""
        projectors = [name for name in files if role(name) == "projector"]
        if self._wanted != "weights" or not projectors or chosen in projectors:
            return None
        return choose_projector(files, repo=str(ref))

    def _choose(self, ref: HubRef, files: Mapping[str, _File]) -> tuple[str, ...]:
        try:
            if self._wanted == "projector":
                return (choose_projector(files, repo=str(ref), file=ref.file),)
            quants = (ref.quant,) if ref.quant else self._quants
            choice: FileChoice = choose(files, repo=f"hf:{ref.repo}", file=ref.file, quants=quants)
        except Unsupported as error:
            conversions = self._conversions(ref)
            if not conversions:
                raise
            raise Unsupported(error.message, hint=f"GGUF conversions of it: {', '.join(conversions)}") from None
        return choice.files

    def _conversions(self, ref: HubRef) -> tuple[str, ...]:
        """Return repositories with a GGUF conversion of this one; none when the hub does not answer."""
        try:
            with _hub(self._web, self._settings, ref.repo) as api:
                tags = ["gguf", f"base_model:quantized:{ref.repo}"]
                found = list(islice(api.list_models(filter=tags, sort="downloads", limit=3), 3))
        except MullamaError:
            return ()  # they are a hint only
        return tuple(f"hf:{model.id}" for model in found if _REPO.fullmatch(str(model.id)))


def pinned_files(ref: HubRef, commit: str, names: list[str], settings: HubSettings) -> tuple[LocatedFile, ...]:
    """Return the addresses of named files of a commit. Sends no request."""
    from huggingface_hub import hf_hub_url

    endpoint, credential = hub_endpoint(settings), hub_credential(settings)
    return tuple(
        LocatedFile(
            name=name, url=str(hf_hub_url(ref.repo, repo_file(name), revision=commit, endpoint=endpoint)),
            credential=credential,
        )
        for name in names
    )  # fmt: skip


def text_file(ref: HubRef, settings: Settings) -> tuple[str, bytes]:
    """Return the commit of a reference and the content of its file, of at most `MAX_METADATA` bytes."""
    assert ref.file is not None
    with open_web(settings) as web:
        commit = ref.revision or ""
        if not _COMMIT.fullmatch(commit):
            commit = str(_model_info(web, settings.hub, ref).sha or "")
        if not _COMMIT.fullmatch(commit):
            raise TransferFailed(f"{hub_endpoint(settings.hub)} returned the commit {commit[:60]!r} for {ref.repo}")
        (file,) = pinned_files(ref, commit, [ref.file], settings.hub)
        try:
            response, body = web.ask(file.url or "", {}, file.credential)
        except TransientError as error:
            raise Unavailable(f"{ref.repo}: {error}", hint="check the network connection") from error
    if response.status == 404:
        raise NotFound(f"{ref.repo} has no file {ref.file} at {ref.revision or 'its default branch'}", name=ref.file)
    if response.status in (401, 403):
        raise Denied(f"{response.host} answered {response.status} for {ref.repo}")
    if response.status != 200:
        raise Unavailable(f"{response.host} answered {response.status} for {ref.file} of {ref.repo}")
    return commit, body


def search(query: str, settings: Settings, *, limit: int, every: bool) -> tuple[Repository, ...]:
    """Return the repositories that match, most downloaded first; with GGUF files only, unless `every`."""
    wanted = {"search": query, "filter": None if every else "gguf", "sort": "downloads", "limit": limit}
    with open_web(settings) as web, _hub(web, settings.hub, repr(query)) as api:
        found = islice(api.list_models(**wanted, full=True), limit)
        return tuple(_repository(info) for info in found if _REPO.fullmatch(str(info.id)))


def repository(ref: HubRef, settings: Settings) -> Repository:
    """Return one repository with its GGUF files and their sizes; raise `NotFound` where there is none."""
    with open_web(settings) as web:
        return _repository(_model_info(web, settings.hub, ref))


def user(settings: HubSettings) -> str:
    """Return the name of the user whose token is sent; raise `Denied` for a token that the hub does not know."""
    with open_web(Settings(hub=settings)) as web, _hub(web, settings, "the token") as api:
        if not api.token:
            raise Denied(f"{api.endpoint} needs a token", hint=f"looked in {_token(settings)[1]}")
        return str(api.whoami()["name"])


def hub_endpoint(settings: HubSettings) -> str:
    """Return the address of the hub; raise `Invalid` for one with a user name or a query, which is sent nowhere."""
    endpoint = settings.endpoint
    if not endpoint:
        from huggingface_hub import constants

        endpoint = str(constants.ENDPOINT)
    parts = urlsplit(endpoint)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise Invalid(
            f"{masked(endpoint)} is not the address of a hub: it has a user name or a query",
            hint="HF_ENDPOINT is https://HOST or https://HOST/PATH, and HF_TOKEN has the secret",
        )
    return endpoint.rstrip("/")


def hub_credential(settings: HubSettings) -> Credential:
    """Return the headers with the token that the manifest names, else with the one that the library finds."""
    token, looked = _token(settings)
    return Credential({"Authorization": f"Bearer {token}"} if token else {}, looked)


def token_path() -> str:
    """Return the path of the file in which the library keeps the token of `login`."""
    from huggingface_hub import constants

    return str(constants.HF_TOKEN_PATH)


def _token(settings: HubSettings) -> tuple[str | None, str]:
    """Return the token and the places where it was looked for."""
    if settings.token:
        return settings.token, settings.token_from or "the manifest"
    from huggingface_hub import constants, get_token

    looked = f"HF_TOKEN and {constants.HF_TOKEN_PATH}"
    if settings.token_from:
        looked = f"{settings.token_from}, {looked}"
    return None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token(), looked


# The library's client

_ASKED: Final = ("/api/models", "/api/whoami-v2")
_current: ContextVar[Web | None] = ContextVar("web", default=None)


class _Busy(Exception):
    """The hub failed after all tries with a status that may pass.

    Raised through the library, because some of its calls repeat such a request with waits of their own.
    """

    def __init__(self, response: HttpResponse) -> None:
        self.response = response


class _Transport(httpx2.BaseTransport):
    """Sends the library's requests through the `Web` of the current call.

    The library has one client for the process. Requests of other code, which has no current `Web`, are sent as usual.
    """

    def __init__(self) -> None:
        self._plain = httpx2.HTTPTransport()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        web = _current.get()
        if web is None:
            return self._plain.handle_request(request)
        # To fill a header, which is not sent, the library asks for a list of programs that may have started it.
        if not any(part in request.url.path for part in _ASKED):  # a mirror may have a path of its own
            return httpx2.Response(404)
        secret = request.headers.get("Authorization")
        credential = Credential({"Authorization": secret}) if secret else None
        response, body = web.ask(str(request.url), {"Accept": "application/json"}, credential)
        if response.status in RETRY_STATUS:
            raise _Busy(response)
        return httpx2.Response(response.status, headers=dict(response.headers), content=body)


@cache
def _install_client() -> None:
    from huggingface_hub import set_client_factory

    set_client_factory(lambda: httpx2.Client(transport=_Transport(), follow_redirects=True, timeout=None))


@contextmanager
def _hub(web: Web, settings: HubSettings, subject: str, revision: str | None = None) -> Iterator[Any]:
    """Yield the library's `HfApi` for a hub, and raise its errors as ours.

    subject: the repository, or what else is asked for, for messages.
    """
    from huggingface_hub import HfApi, errors

    _install_client()
    endpoint, (token, looked) = hub_endpoint(settings), _token(settings)
    tried = f"{'a token was sent' if token else 'no token was found'}; looked in {looked}"
    previous = _current.set(web)
    try:
        yield HfApi(endpoint=endpoint, token=token or False)
    except errors.HfHubHTTPError as error:
        raise _refusal(error, subject, revision, tried) from error
    except _Busy as error:
        raise Unavailable(
            f"{error.response.host} answered {error.response.status} for {subject}", hint="try again later",
            retry_after=error.response.retry_after,
        ) from error  # fmt: skip
    except TransientError as error:
        raise Unavailable(f"{subject}: {error}", hint="check the network connection") from error
    except (TypeError, ValueError, LookupError, AttributeError, RecursionError) as error:
        raise TransferFailed(f"the description of {subject} by {endpoint} cannot be read: {error!r}"[:400]) from error
    finally:
        _current.reset(previous)


def _refusal(error: Any, subject: str, revision: str | None, tried: str) -> MullamaError:
    """Return the error of ours for a refusal, by the library's class for it."""
    from huggingface_hub import errors

    host, status = error.response.url.netloc.decode("ascii"), error.response.status_code
    if isinstance(error, errors.GatedRepoError):
        return Denied(
            f"{subject} is gated: its owner must grant access", hint=f"{tried}; request it on the model's page"
        )
    if isinstance(error, errors.DisabledRepoError):
        return Denied(f"{subject} is disabled on {host}")
    if isinstance(error, errors.RevisionNotFoundError):
        return NotFound(f"{subject} has no revision {revision!r}", name=str(revision))
    if isinstance(error, errors.RepositoryNotFoundError):
        return NotFound(f"{host} has no model {subject}, or it is private", name=subject, hint=tried)
    if status in (401, 403):
        return Denied(f"{host} answered {status} for {subject}", hint=tried)
    if status == 404:
        return NotFound(f"{host} does not know {subject}", name=subject)
    return TransferFailed(f"{host} answered {status} for {subject}")


def _model_info(web: Web, settings: HubSettings, ref: HubRef) -> Any:
    """Return the library's `ModelInfo` with the sizes and digests of the files."""
    with _hub(web, settings, ref.repo, ref.revision) as api:
        return api.model_info(ref.repo, revision=ref.revision, files_metadata=True)


def _repository(info: Any) -> Repository:
    updated = info.last_modified or info.created_at
    gguf = {name: file for name, file in _files(info).items() if name.lower().endswith(".gguf")}
    return Repository(
        name=str(info.id), downloads=_count(info.downloads), likes=_count(info.likes), gated=bool(info.gated),
        updated=updated.isoformat(timespec="milliseconds").replace("+00:00", "Z") if updated else "",
        license=_license(info), task=str(info.pipeline_tag or ""),
        files=tuple((name, file.size) for name, file in gguf.items()),
    )  # fmt: skip


def _files(info: Any) -> dict[str, _File]:
    """Return the files of a repository by name; raise `Invalid` for a GGUF file with a dangerous name.

    Other files with such names, as pictures may have, are left out.
    """
    siblings = info.siblings or []
    if len(siblings) > MAX_FILES:
        raise TransferFailed(f"{info.id} has {len(siblings)} files, more than {MAX_FILES}")
    files = {}
    for sibling in siblings:
        name = str(sibling.rfilename)
        try:
            repo_file(name)
        except Invalid:
            if name.lower().endswith(".gguf"):
                raise
            continue
        if name.lower().endswith(".gguf"):
            _check_metadata(sibling, f"{name} of {info.id}")
        sha = sibling.lfs.sha256 if sibling.lfs else None
        files[name] = _File(
            size=sibling.size if isinstance(sibling.size, int) and 0 <= sibling.size < 2**50 else None,
            digest=f"sha256:{sha}" if isinstance(sha, str) and _SHA256.fullmatch(sha) else None,
        )
    return files


def _check_metadata(sibling: Any, what: str) -> None:
    """Raise `TransferFailed` for a size or a digest that is none. Absent ones are allowed."""
    size = sibling.size
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 2**50):
        raise TransferFailed(f"the hub gives {what} the size {str(size)[:60]!r}", hint="the file is not downloaded")
    sha = sibling.lfs.sha256 if sibling.lfs else None
    if sha is not None and not (isinstance(sha, str) and _SHA256.fullmatch(sha)):
        raise TransferFailed(f"the hub gives {what} the digest {str(sha)[:80]!r}", hint="the file is not downloaded")


def _license(info: Any) -> str:
    tags = [str(tag) for tag in info.tags or []]
    return next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), "")


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
