"""Checks of servers of tools: names, places, secrets, and the models and keys that name them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from typing import Final

from mullama.chat.tool_servers import SEARCH_LABEL
from mullama.manifest.checks.routes import is_local
from mullama.manifest.diagnostics import Suggestions
from mullama.manifest.spec import Manifest, Model

_AddProblem = Callable[[str, str, str], None]
_NAME: Final = re.compile(r"(?=.{1,32}$)[A-Za-z0-9-]+(?:_[A-Za-z0-9-]+)*")
_NAME_HINT: Final = "at most 32 letters, digits and '-', and single '_' between them"
_OWN: Final = (SEARCH_LABEL,)
"""Names of providers of mullama itself."""


def check_servers(manifest: Manifest, fail: _AddProblem, warn: _AddProblem) -> None:
    """Report mistakes of servers of tools, and those that no model uses."""
    used = {server for model in manifest.models.values() for server in model.mcp}
    if manifest.search is not None and manifest.search.server is not None:
        used.add(manifest.search.server)
    for name, server in manifest.mcp.items():
        path = f"mcp.{name}"
        if not _NAME.fullmatch(name):
            fail(path, f"{name[:80]!r} is not a name of a server of tools", _NAME_HINT)
        elif name in _OWN:
            fail(path, f"{name} is the name of tools of mullama itself", "rename the server")
        if (server.url is None) == (server.from_host is None):
            fail(path, "expected one of url and from_host", "url: https://HOST/mcp, or from_host: NAME")
        if server.headers and server.url is None:
            fail(f"{path}.headers", "are for a server by url", "a command gets its environment from the host file")
        if server.headers and server.url is not None and server.url.startswith("http://") and not is_local(server.url):
            warn(f"{path}.url", "the headers are sent without encryption", "use https://")
        lowered = [header.lower() for header in server.headers]
        if server.oauth is not None:
            if server.url is None:
                fail(f"{path}.oauth", "is for a server by url", "a command gets its environment from the host file")
            if "authorization" in lowered:
                fail(f"{path}.oauth", "headers has a token of its own", "keep oauth or headers.Authorization")
            if server.oauth.token_url.startswith("http://") and not is_local(server.oauth.token_url):
                warn(f"{path}.oauth.token_url", "the secret of the client is sent without encryption", "use https://")
        for header in server.headers:
            if lowered.count(header.lower()) > 1:
                fail(f"{path}.headers.{header}", "the header is there twice", "keep one of them")
        for index, pattern in _repeated(server.tools):
            fail(f"{path}.tools[{index}]", f"the tool {pattern} is listed twice", "keep one of them")
        if name not in used:
            warn(path, "no model uses this server", f"models: {{NAME: {{mcp: [{name}]}}}}")


def check_search(
    manifest: Manifest, models: Collection[str], suggest: Suggestions, fail: _AddProblem, warn: _AddProblem
) -> None:
    """Report mistakes of the search of the web. models: the names of all models, also of those with mistakes."""
    search, path = manifest.search, "search"
    using = [name for name, model in manifest.models.items() if model.search]
    if search is None:
        for name in using:
            fail(
                f"models.{name}.search",
                "the manifest declares no search",
                "search: {provider: searxng, url: https://HOST}",
            )
        return
    needed, unused = _FIELDS_OF[search.provider]
    for field in needed:
        if getattr(search, field) is None:
            fail(f"{path}.{field}", f"provider: {search.provider} needs it", _EXAMPLES[field])
    for field in unused:
        if getattr(search, field) is not None:
            fail(f"{path}.{field}", f"has no meaning with provider: {search.provider}", f"remove {field}")
    if search.server is not None and search.server not in manifest.mcp:
        hint = suggest(search.server, manifest.mcp) or "mcp: {NAME: {url: https://HOST/mcp}} declares one"
        fail(f"{path}.server", f"there is no server of tools {search.server[:80]!r}", hint)
    if search.embed is not None:
        model = manifest.models.get(search.embed)
        if search.embed not in models:
            fail(f"{path}.embed", f"there is no model {search.embed[:80]!r}", suggest(search.embed, models))
        elif model is not None and model.task != "embedding":
            fail(f"{path}.embed", f"{search.embed} is a model for {model.task}", "name one with task: embedding")
    url = search.url or ""
    if search.key is not None and url.startswith("http://") and not is_local(url):
        warn(f"{path}.url", "the key is sent without encryption", "use https://")
    for field in ("allow", "deny"):
        for index, host in _repeated(getattr(search, field)):
            fail(f"{path}.{field}[{index}]", f"{host} is listed twice", "keep one of them")
    for name in using:
        if manifest.models[name].task != "chat":
            fail(f"models.{name}.search", f"a model for {manifest.models[name].task} calls no tools", "remove search")


_FIELDS_OF: Final = {
    "searxng": (("url",), ("server", "tool")),
    "brave": (("key",), ("server", "tool")),
    "mcp": (("server", "tool"), ("url", "key")),
}
"""The fields that a search engine needs, and those that it does not have."""
_EXAMPLES: Final = {
    "url": "url: https://search.example.org", "key": "key: {from_env: BRAVE_API_KEY}", "server": "a name of mcp",
    "tool": "the name of its tool",
}  # fmt: skip


def check_use(model: Model, path: str, servers: Collection[str], suggest: Suggestions, fail: _AddProblem) -> None:
    """Report mistakes of a model in the use of tools. path: of the model. servers: the names of all servers."""
    check_names(model.mcp, f"{path}.mcp", servers, suggest, fail)
    if model.mcp and model.task != "chat":
        fail(f"{path}.mcp", f"a model for {model.task} calls no tools", "remove mcp")
    if not isinstance(model.approve, str):
        for index, pattern in _repeated(model.approve):
            fail(f"{path}.approve[{index}]", f"{pattern} is listed twice", "keep one of them")


def server_names(manifest: Manifest) -> tuple[str, ...]:
    """Return the names of all servers of tools, with that of the search of the web."""
    return (*manifest.mcp, *(_OWN if manifest.search is not None else ()))


def check_names(
    names: Collection[str], path: str, servers: Collection[str], suggest: Suggestions, fail: _AddProblem
) -> None:
    """Report names of servers that are not declared, or listed twice."""
    for index, name in enumerate(names):
        if name not in servers:
            hint = suggest(name, servers) or "mcp: {NAME: {url: https://HOST/mcp}} declares one"
            fail(f"{path}[{index}]", f"there is no server of tools {name[:80]!r}", hint)
    for index, name in _repeated(tuple(names)):
        fail(f"{path}[{index}]", f"{name} is listed twice", "keep one of them")


def _repeated(values: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Yield each value that stands before in the list, with its index."""
    return ((index, value) for index, value in enumerate(values) if value in values[:index])
