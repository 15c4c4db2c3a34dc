"""The files of every client, as they are written where none is: the forms that the programs were run with."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from mullama.clients.base import NO_KEY, ServedModel, UserFolders
from mullama.clients.edits import edited
from mullama.clients.programs import CLIENTS
from mullama.manifest.spec.readers import ClientName
from mullama.struct import replace

GOLDEN = Path(__file__).with_name("golden")
OPEN = ServedModel(url="http://127.0.0.1:11434", model="qwen3:8b", context=131072)
LOCKED = replace(OPEN, url="https://llm.example.org", key="TEAM_KEY")
HOME = UserFolders(home="/home/me", platform="linux")


def report(name: str) -> str:
    """Return the command and the files of a client, for a server without keys and for one with keys."""
    parts = []
    for served, key in ((OPEN, NO_KEY), (LOCKED, "secret-key")):
        client = CLIENTS[name]
        command = client.start(served, key)
        parts += [f"$ {word}" for word in command.words]
        parts += [f"{name}={value}" for name, value in command.variables.items()]
        parts += [f"unset {name}" for name in command.without]
        for file in client.files(served, HOME):
            parts += [f"--- {file.path}", edited(file.form, "", file.edits, file.path).rstrip("\n")]
        parts += [f"note: {note}" for note in client.notes(served)]
        parts.append("")
    return "\n".join(parts)


@pytest.mark.parametrize("name", CLIENTS)
def test_the_forms_are_the_recorded_ones(name: str) -> None:
    assert report(name) == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CLIENTS)
def test_no_file_holds_the_key(name: str) -> None:
    client = CLIENTS[name]
    texts = [edited(file.form, "", file.edits, file.path) for file in client.files(LOCKED, HOME)]
    assert not any("secret-key" in text for text in texts)
    assert "secret-key" not in " ".join(client.start(LOCKED, "secret-key").words)


def test_the_table_has_every_client_of_the_manifest() -> None:
    assert tuple(CLIENTS) == get_args(ClientName)
    assert all(client.name == name for name, client in CLIENTS.items())


@pytest.mark.parametrize("name", CLIENTS)
def test_a_model_of_unknown_context_is_configured(name: str) -> None:
    client = CLIENTS[name]
    served = replace(OPEN, context=None)
    texts = [edited(file.form, "", file.edits, file.path) for file in client.files(served, HOME)]
    assert not any("null" in text or "None" in text for text in texts)
    assert client.start(served, NO_KEY).words[0] == client.program


def test_each_platform_has_its_places() -> None:
    mac = replace(HOME, platform="darwin")
    windows = replace(HOME, platform="win32", env={"APPDATA": "C:/Users/me/AppData/Roaming"})

    def path(name: str, folders: UserFolders) -> str:
        return CLIENTS[name].files(OPEN, folders)[0].path

    assert path("vscode", mac) == "/home/me/Library/Application Support/Code/User/chatLanguageModels.json"
    assert path("vscode", windows) == "C:/Users/me/AppData/Roaming/Code/User/chatLanguageModels.json"
    assert path("zed", mac) == "/home/me/.config/zed/settings.json"
    assert path("goose", windows).startswith("C:/Users/me/AppData/Roaming/Block/goose/config/")
    assert path("llm", mac).startswith("/home/me/Library/Application Support/io.datasette.llm/")


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("codex", "CODEX_HOME"), ("claude-code", "CLAUDE_CONFIG_DIR"), ("llm", "LLM_USER_PATH"),
        ("continue", "CONTINUE_GLOBAL_DIR"), ("opencode", "OPENCODE_CONFIG"), ("zed", "XDG_CONFIG_HOME"),
    ],
)  # fmt: skip
def test_variables_move_the_places(name: str, variable: str) -> None:
    folders = replace(HOME, env={variable: "/elsewhere"})
    assert CLIENTS[name].files(OPEN, folders)[0].path.startswith("/elsewhere")
