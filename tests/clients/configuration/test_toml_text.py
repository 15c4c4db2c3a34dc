"""TOML: edited by tomlkit, with comments, order and foreign tables as they were."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from mullama.clients import toml_text
from mullama.clients.base import Edit
from mullama.clients.edits import edited
from mullama.clients.spans import DamagedText
from mullama.errors import Refused

CODEX = """# my settings
model = "gpt-5"   # the good one

[model_providers.other]
name = 'other' # theirs
base_url = "https://o/v1"

[tools]
web_search = true
"""
PROVIDER = ("model_providers", "mullama")
EDITS = [Edit(path=("model",), value="chat"), Edit(path=("model_provider",), value="mullama"),
         Edit(path=PROVIDER, value={"name": "mullama", "base_url": "http://h/v1"})]  # fmt: skip


def test_fields_and_a_table_are_added_and_the_rest_stays() -> None:
    made = edited("toml", CODEX, EDITS, "f")
    tree = tomllib.loads(made)
    assert (tree["model"], tree["model_provider"]) == ("chat", "mullama")
    assert tree["model_providers"]["mullama"] == {"name": "mullama", "base_url": "http://h/v1"}
    assert [line for line in CODEX.splitlines() if line not in made.splitlines()] == [
        'model = "gpt-5"   # the good one'
    ]
    assert "# the good one" in made
    assert edited("toml", made, EDITS, "f") == made


@pytest.mark.parametrize(
    "text",
    [
        "", "[tools]\nweb = true\n", "model_providers = {}\n",        "[model_providers]\n",
        "[model_providers.mullama]\nname = 'old' # mine\nextra = 1\n",
        "a = 1\r\n\r\n[t]\r\nb = 2\r\n", "model_providers = {mullama = {name = 'n'}}\n", "# only a comment",
        "[[hooks]]\nname = 'a'\n", "[a]\nb = 1 # no line end",
    ],
)  # fmt: skip
def test_every_way_to_write_the_tables_is_read_and_kept(text: str) -> None:
    before = tomllib.loads(text)
    made = edited("toml", text, EDITS, "f")
    tree = tomllib.loads(made)
    assert tree["model_providers"]["mullama"]["base_url"] == "http://h/v1"
    foreign: dict[str, Any] = {key: value for key, value in before.items() if key != "model_providers"}
    assert {key: tree[key] for key in foreign} == foreign
    assert ("\r\n" in made) == ("\r\n" in text)
    assert made.replace("\r\n", "").count("\n") == (0 if "\r\n" in text else made.count("\n"))
    for line in text.splitlines():
        assert not line.startswith("#") or line in made


def test_dotted_keys_that_tomlkit_would_reorder_are_refused() -> None:
    with pytest.raises(Refused, match="without changing more of it"):
        edited("toml", "model_providers.x.name = 'y'\n", EDITS, "f")


def test_a_value_in_the_way_is_refused() -> None:
    with pytest.raises(Refused, match="model_providers is not a map"):
        edited("toml", "model_providers = 1\n", EDITS, "f")


@pytest.mark.parametrize(
    ("text", "line", "column"), [("a = \n", 1, 5), ("a = 1\nb = [1\n", 2, 1), ("[t\n", 1, 3), ("a = 1\na = 2\n", 2, 1)]
)
def test_a_damaged_text_has_its_place(text: str, line: int, column: int) -> None:
    with pytest.raises(DamagedText) as caught:
        toml_text.read(text)
    assert (caught.value.line, caught.value.column) == (line, column)
