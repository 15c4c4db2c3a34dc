"""The blocks of tools: servers of the Model Context Protocol, and the approval of calls."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from mullama.manifest.spec.readers import check_approval, check_header_name, check_mcp_url
from mullama.manifest.spec.server import SecretRef
from mullama.manifest.spec.values import Block, Duration, Size, Text

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
    tools: tuple[Text, ...] = Field(default=("*",), min_length=1, max_length=256, examples=[["search", "read_*"]])
    """Names or patterns of the tools that models may use."""
    timeout: Duration = Field(default=30.0, ge=0.1, le=3600.0, examples=["30s"])
    """Maximum time to connect, to list the tools, and of one call."""
    result: Size = Field(default=64 * 1024, ge=1024, le=16 * 1024**2, examples=["64KiB"])
    """Maximum size of the text of a result; a longer one is cut."""
