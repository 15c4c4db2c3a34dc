"""The page of the environment names every variable that the code reads."""

from __future__ import annotations

import re
from pathlib import Path

from mullama.cli.app.environment import ENVIRONMENT, HUB, OLLAMA, SYSTEM, UNREAD, environment_page
from mullama.cli.server.doctor import unread_findings

ROOT = Path(__file__).parents[3]
_READ = re.compile(
    r"""env\w*(?:\.get\(|\[)\s*["']([A-Z][A-Z0-9_]+)["']|["']([A-Z][A-Z0-9_]+)["'] in (?:call\.)?env\b"""
)
# Of Windows, and what is set for children rather than read.
_ELSEWHERE = {"APPDATA", "LOCALAPPDATA", "PYTHONPATH", "OLLAMA_MODELS"}
# Variables of clients, which stand in the line of one of them.
_OF_CLIENTS = {"CLAUDE_CONFIG_DIR", "OPENCODE_CONFIG", "CONTINUE_GLOBAL_DIR", "LLM_USER_PATH"}


def test_every_variable_that_is_read_is_on_the_page() -> None:
    read = set()
    for path in (ROOT / "mullama").rglob("*.py"):
        read |= {a or b for a, b in _READ.findall(path.read_text(encoding="utf-8"))}
    assert {"MULLAMA_STATE_DIR", "HF_HUB_OFFLINE", "XDG_STATE_HOME"} <= read
    children = {name for name in read if name.startswith(("OMP_", "GOMP_", "GGML_", "KMP_"))}
    assert all(name in SYSTEM["CODEX_HOME"] for name in _OF_CLIENTS)
    assert read - children - _ELSEWHERE - _OF_CLIENTS <= {*ENVIRONMENT, *HUB, *SYSTEM}


def test_variables_listed_as_unread_are_not_read() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "mullama").rglob("*.py"))
    for name in UNREAD:
        assert text.count(f'"{name}"') == 1, f"{name} is more than an entry of the table"


def test_the_page_names_them_all() -> None:
    page = environment_page("note")
    assert all(f"`{name}`" in page for name in (*ENVIRONMENT, *HUB, *SYSTEM, *OLLAMA, *UNREAD))


def test_doctor_names_the_setting_for_an_unread_variable() -> None:
    found = list(
        unread_findings({"OLLAMA_HOST": "x", "OLLAMA_MODELS": "/m", "OLLAMA_NEW": "1", "PATH": "", "MULLAMA_PORT": "1"})
    )
    assert [(f.state, f.message) for f in found] == [
        ("warning", "MULLAMA_PORT is set but not read"),
        ("warning", "OLLAMA_HOST is set but not read"),
        ("note", "OLLAMA_MODELS is set"),
        ("note", "OLLAMA_NEW is set but not read"),
    ]
    assert found[1].hint == "here: server.listen"
