"""The names, digests and order of tools."""

from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from mullama.chat.tool_servers import LONGEST_FUNCTION
from mullama.tools.base import ServerTool, prompt_tools

SERVERS = st.from_regex(r"\A[a-z0-9]{1,6}([_-][a-z0-9]{1,6}){0,2}\Z")
NAMES = st.text(min_size=1, max_size=90)
SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}, "n": {"type": "integer"}}}


def tool(name: str = "search", **fields: object) -> ServerTool:
    return ServerTool(**{"server": "docs", "name": name, "description": "d", "parameters": SCHEMA, **fields})  # type: ignore[arg-type]


def test_a_function_is_named_by_its_server_and_tool() -> None:
    assert tool("read_page-2").function == "docs__read_page-2"


def test_a_name_with_other_characters_or_too_many_is_changed_and_stays_its_own() -> None:
    dotted, spaced = tool("read.page").function, tool("read page").function
    assert dotted.startswith("docs__read_page_")
    assert spaced.startswith("docs__read_page_")
    assert len({dotted, spaced, tool("read_page").function}) == 3
    assert len(tool("x" * 200).function) == LONGEST_FUNCTION


@given(st.lists(st.tuples(SERVERS, NAMES), min_size=2, max_size=2, unique=True))
def test_two_tools_have_two_function_names_that_every_dialect_accepts(pairs: list[tuple[str, str]]) -> None:
    functions = [tool(name, server=server).function for server, name in pairs]
    assert len(set(functions)) == 2
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", function) for function in functions)


def test_the_digest_is_that_of_name_description_and_schema_alone() -> None:
    reordered = json.loads(json.dumps(SCHEMA, sort_keys=True))
    same = {tool().digest, tool(server="other").digest, tool(parameters=reordered).digest}
    assert len(same) == 1
    other = {
        tool("find").digest, tool(description="D").digest, tool(parameters={"type": "object"}).digest, tool().digest,
    }  # fmt: skip
    assert len(other) == 4
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", tool().digest)


def test_a_prompt_has_the_tools_in_one_order() -> None:
    tools = (tool("b"), tool("a", server="web"), tool("a"))
    assert [t.name for t in prompt_tools(tools)] == ["docs__a", "docs__b", "web__a"]
    assert prompt_tools(tools) == prompt_tools(reversed(tools))
    assert prompt_tools(tools)[0].parameters == SCHEMA
