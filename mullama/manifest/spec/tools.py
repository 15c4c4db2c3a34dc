"""The blocks of tools: servers of the Model Context Protocol, search of the web, and the approval of calls."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from mullama.manifest.spec.readers import (
    check_approval,
    check_header_name,
    check_host,
    check_mcp_url,
    check_search_url,
)
from mullama.manifest.spec.server import SecretRef
from mullama.manifest.spec.values import Block, Duration, Size, Text, Whole

Approval = Annotated[
    Literal["never", "always"] | tuple[str, ...],
    BeforeValidator(check_approval),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["never", "always"]},
                {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}},
            ]
        }
    ),
]


class OAuth(Block):
    """The credentials by which mullama gets tokens of OAuth for a server of tools, without a person."""

    token_url: Annotated[str, AfterValidator(check_mcp_url)] = Field(examples=["https://login.example.org/oauth/token"])
    """Address of the authorization server that gives tokens. Nothing that the server of tools says changes it."""
    client_id: Text = Field(examples=["mullama"])
    """Name of the client at the authorization server."""
    client_secret: SecretRef = Field(examples=[{"from_env": "DOCS_CLIENT_SECRET"}])
    """Reference to the secret of the client."""
    scopes: tuple[Text, ...] = Field(default=(), max_length=64, examples=[["tools.read"]])
    """Rights to ask for; without it, those that the authorization server gives."""


class McpServer(Block):
    """A server of tools by the Model Context Protocol (MCP): exactly one of `url` and `from_host`. It needs the extra
    `mullama[mcp]`."""

    url: Annotated[str, AfterValidator(check_mcp_url)] | None = Field(
        default=None, examples=["https://mcp.example.org/mcp"]
    )
    """Address of the server, by streamable HTTP."""
    from_host: Text | None = Field(default=None, examples=["filesystem"])
    """Name of a command in the host file of the machine (`/etc/mullama/mcp.json`). A manifest has no commands."""
    headers: dict[Annotated[str, AfterValidator(check_header_name)], SecretRef] = Field(
        default={}, max_length=16, examples=[{"Authorization": {"from_env": "DOCS_TOKEN"}}]
    )
    """Headers of the requests to `url`, by name; each value is a reference to a secret."""
    oauth: OAuth | None = None
    """Credentials for a server by `url` that asks for tokens of OAuth. A token that does not end can be a header."""
    tools: tuple[Text, ...] = Field(default=("*",), min_length=1, max_length=256, examples=[["search", "read_*"]])
    """Names or patterns of the tools that models may use."""
    timeout: Duration = Field(default=30.0, ge=0.1, le=3600.0, examples=["30s"])
    """Maximum time to connect, to list the tools, and of one call."""
    result: Size = Field(default=64 * 1024, ge=1024, le=16 * 1024**2, examples=["64KiB"])
    """Maximum size of the text of a result; a longer one is cut."""


class Search(Block):
    """Search of the web as tools of models. Pages are read with the extra `mullama[search]`."""

    provider: Literal["searxng", "brave", "mcp"] = Field(examples=["searxng"])
    """Search engine: a SearXNG server with the JSON format, Brave Search, or a tool of a server of `mcp`."""
    url: Annotated[str, AfterValidator(check_search_url)] | None = Field(
        default=None, examples=["https://search.example.org"]
    )
    """Address of the SearXNG server, or another one for the API of Brave."""
    key: SecretRef | None = Field(default=None, examples=[{"from_env": "BRAVE_API_KEY"}])
    """Key of the search engine; SearXNG gets it as a bearer token."""
    server: Text | None = Field(default=None, examples=["docs"])
    """With `provider: mcp`: name of the server in `mcp`."""
    tool: Text | None = Field(default=None, examples=["web_search"])
    """With `provider: mcp`: name of its tool that searches."""
    results: Whole = Field(default=5, ge=1, le=20)
    """Most pages of one search."""
    pages: Whole = Field(default=3, ge=0, le=10)
    """Number of them whose text is read; of the others the result has the extract of the search engine."""
    max_bytes: Size = Field(default=2 * 1024**2, ge=1024, le=32 * 1024**2, examples=["2MiB"])
    """Bytes of a page that are read; the rest is left out."""
    timeout: Duration = Field(default=15.0, ge=0.1, le=300.0, examples=["15s"])
    """Maximum time of the search engine, and of all pages of one search."""
    embed: Text | None = Field(default=None, examples=["embed"])
    """Name of an embedding model that ranks passages of the pages; without it, the words of the question do."""
    allow: tuple[Annotated[str, AfterValidator(check_host)], ...] = Field(
        default=(), max_length=256, examples=[["*.example.org"]]
    )
    """Hosts whose pages are read: `NAME`, `*.DOMAIN`, or `*` for every public host. A model may ask for any page of
    them. Without it, pages of every public host are read, and a model asks only for those that a search returned."""
    deny: tuple[Annotated[str, AfterValidator(check_host)], ...] = Field(
        default=(), max_length=256, examples=[["ads.example.org"]]
    )
    """Hosts whose pages are never read."""
