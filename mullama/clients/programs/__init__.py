"""The programs that mullama configures, one module for each, and their table. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from mullama.clients.base import ClientProgram
from mullama.clients.programs.aider import AIDER
from mullama.clients.programs.claude_code import CLAUDE_CODE
from mullama.clients.programs.cline import CLINE
from mullama.clients.programs.codex import CODEX
from mullama.clients.programs.continue_ import CONTINUE
from mullama.clients.programs.goose import GOOSE
from mullama.clients.programs.llm import LLM
from mullama.clients.programs.open_webui import OPEN_WEBUI
from mullama.clients.programs.opencode import OPENCODE
from mullama.clients.programs.vscode import VSCODE
from mullama.clients.programs.zed import ZED

CLIENTS: Mapping[str, ClientProgram] = {
    client.name: client
    for client in (
        CLAUDE_CODE, CODEX, OPENCODE, AIDER, GOOSE, CONTINUE, ZED, CLINE, VSCODE, OPEN_WEBUI, LLM,
    )
}  # fmt: skip
"""The clients by name, in the order of the documentation."""
