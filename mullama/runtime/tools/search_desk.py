"""The search of the web that the manifest in force declares. Belongs to the event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from mullama.chat import types as chat
from mullama.errors import Internal, MullamaError, ToolsUnavailable
from mullama.manifest.spec import Manifest, Search
from mullama.reconcile.secrets import read_secret
from mullama.runtime.base import Caller, Service
from mullama.tools.base import ServerTool, ToolProvider
from mullama.tools.search.base import Embed, Vector
from mullama.tools.search.declared import search_tools
from mullama.tools.search.page_reader import PageReader, require_parser

if TYPE_CHECKING:
    from mullama.sources.network import Allowed
    from mullama.tools.search.provider import SearchTools

EmbedBy = Callable[[str, str, Sequence[str]], Awaitable[tuple[Vector, Sequence[Vector]]]]
"""Returns the vectors of a question and of passages by a model, which the first argument names."""

_CALLER = Caller(dialect="mullama", request_id="search", roles=("infer",))
_PROMPTS = (("query",), ("passage", "document"))
"""Names of the prompts of a question and of passages, as embedding models declare them."""


class SearchDesk:
    """Opens the search with the first call, and again after a change of its block or of its key.

    server: returns a server of tools by its name, for `provider: mcp`. allowed: decides on the addresses of
    pages; None for those that are public.
    """

    def __init__(
        self, env: Mapping[str, str], server: Callable[[str], ToolProvider], *, allowed: Allowed | None = None
    ) -> None:
        self._env, self._server, self._allowed = env, server, allowed
        self.embed: EmbedBy | None = None
        """Set by the composition root, which makes the models after the tools."""
        self._search: Search | None = None
        self._opened: tuple[str | None, SearchTools] | None = None
        self._reader = PageReader()
        self.tools: tuple[ServerTool, ...] = ()
        """The tools of a search, sorted by name; none where the manifest declares no search."""
        self.problem = ""
        """The reason why searches fail or read no pages, as a clause; "" for none."""

    def follow(self, manifest: Manifest) -> None:
        """Search as a manifest declares it from now on. Calls in progress end as they began."""
        if manifest.search != self._search:
            self._search, self._opened = manifest.search, None
            self.tools = search_tools(manifest.search) if manifest.search is not None else ()
        self.problem = self._problem()

    @property
    def seconds(self) -> float:
        """The most seconds of one call: of the search engine, and of the pages after it."""
        return 2 * self._search.timeout if self._search is not None else 0.0

    def provider(self) -> ToolProvider:
        """Return the tools to call. Raises `ToolsUnavailable` without a search, and for a key that cannot be read."""
        search = self._search
        if search is None:
            raise ToolsUnavailable("the manifest declares no search of the web")
        try:
            key = self._key(search)
        except MullamaError as error:
            self.problem = str(error)
            raise ToolsUnavailable(error.message, hint=error.hint) from error
        if self.problem:
            self.problem = self._problem()
        if self._opened is None or self._opened[0] != key:
            from mullama.tools.search.opening import open_search  # with an HTTP client, which few servers need

            tools = open_search(search, key, self._server, self._by(search), reader=self._reader, allowed=self._allowed)
            self._opened = key, tools
        return self._opened[1]

    async def close(self) -> None:
        """End the process that reads pages."""
        await self._reader.aclose()

    def _problem(self) -> str:
        try:
            if self._search is not None:
                self._key(self._search)
                if self._search.pages:
                    require_parser()
        except MullamaError as error:
            return str(error)
        return ""

    def _key(self, search: Search) -> str | None:
        return read_secret(search.key, "search.key", self._env) if search.key is not None else None

    def _by(self, search: Search) -> Embed | None:
        model = search.embed
        if model is None:
            return None

        async def vectors(question: str, passages: Sequence[str]) -> tuple[Vector, Sequence[Vector]]:
            if self.embed is None:
                raise ToolsUnavailable("no model computes vectors yet")
            return await self.embed(model, question, passages)

        return vectors


def embed_by(service: Service) -> EmbedBy:
    """Return the vectors of the models of a service, with their prompts for questions and for passages."""

    async def embed(model: str, question: str, passages: Sequence[str]) -> tuple[Vector, Sequence[Vector]]:
        declared = service.access().manifest.models.get(model)
        known = declared.embedding.prompts if declared is not None else {}
        found: list[Sequence[Vector]] = []
        for texts, names in zip(((question,), tuple(passages)), _PROMPTS, strict=True):
            prompt = next((name for name in names if name in known), None)
            answer = await service.answer(chat.EmbedRequest(model=model, inputs=texts, prompt=prompt), _CALLER)
            if not isinstance(answer, chat.Vectors):
                raise Internal("texts have another result than vectors")
            found.append(answer.vectors)
        return found[0][0], found[1]

    return embed
