"""Questions to a hub that fetch nothing: which repositories match, what one holds, and who a token belongs to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from mullama.errors import Denied, MullamaError, NotFound, TransferFailed, Unavailable
from mullama.sources.huggingface import hub_credential, hub_endpoint
from mullama.sources.metadata_request import ask
from mullama.sources.settings import HubSettings, Settings
from mullama.sources.web import TransientError, Web


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """What a hub tells of a repository. files: GGUF files with their bytes, None where the hub does not say."""

    name: str
    downloads: int = 0
    likes: int = 0
    updated: str = ""
    gated: bool = False
    license: str = ""
    task: str = ""
    files: tuple[tuple[str, int | None], ...] = ()


def search(query: str, settings: Settings, *, limit: int, every: bool) -> tuple[Repository, ...]:
    """The most fetched repositories that match; with GGUF files only, unless `every`."""
    wanted = {"search": query, "sort": "downloads", "direction": "-1", "limit": str(limit), "full": "true"}
    if not every:
        wanted["filter"] = "gguf"
    found = _get(f"/api/models?{urlencode(wanted)}", settings, query)
    if not isinstance(found, list):
        raise TransferFailed("the hub answered no list")
    return tuple(_repository(item) for item in found if isinstance(item, dict))


def repository(name: str, settings: Settings, revision: str | None = None) -> Repository:
    """One repository with its GGUF files and their sizes; `NotFound` for none."""
    at = f"/revision/{quote(revision, safe='')}" if revision else ""
    found = _get(f"/api/models/{name}{at}?blobs=True", settings, name)
    if not isinstance(found, dict):
        raise TransferFailed("the hub answered no object")
    return _repository(found)


def user(settings: HubSettings) -> str:
    """The name of the user whose token is sent; `Denied` for a token that is none."""
    found = _get("/api/whoami-v2", Settings(hub=settings), "the token")
    return str(found.get("name", "")) if isinstance(found, dict) else ""


def _get(path: str, settings: Settings, what: str) -> Any:
    hub = settings.hub
    endpoint, credential = hub_endpoint(hub), hub_credential(hub)
    with Web(waits=settings.waits) as web:
        try:
            answer, raw = ask(web, f"{endpoint}{path}", {"Accept": "application/json"}, credential)
        except TransientError as error:
            raise Unavailable(f"{endpoint} cannot be asked: {error}", hint="is there a network?") from error
    if answer.status != 200:
        raise _refused(answer.status, endpoint, what, credential.looked)
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise TransferFailed(f"{endpoint} answered something that is not JSON") from error


def _refused(status: int, endpoint: str, what: str, looked: str) -> MullamaError:
    if status in (401, 403):
        return Denied(f"{endpoint} answered {status} for {what}", hint=f"looked for a token in {looked}")
    if status == 404:
        return NotFound(f"{endpoint} has no {what}", name=what)
    return Unavailable(f"{endpoint} answered {status} for {what}", hint="try again later")


def _repository(tree: dict[str, Any]) -> Repository:
    tags = [str(tag) for tag in tree.get("tags") or ()]
    siblings = [item for item in tree.get("siblings") or () if isinstance(item, dict)]
    return Repository(
        name=str(tree.get("id") or tree.get("modelId") or ""),
        downloads=_count(tree.get("downloads")),
        likes=_count(tree.get("likes")),
        updated=str(tree.get("lastModified") or tree.get("createdAt") or ""),
        gated=bool(tree.get("gated")),
        license=next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), ""),
        task=str(tree.get("pipeline_tag") or ""),
        files=tuple(
            (str(item.get("rfilename")), item.get("size") if isinstance(item.get("size"), int) else None)
            for item in siblings
            if str(item.get("rfilename", "")).lower().endswith(".gguf")
        ),
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
