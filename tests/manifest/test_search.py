"""The search of the web in the manifest: what each search engine needs, and the models that use it."""

from __future__ import annotations

import pytest

from mullama.manifest.tree import manifest_to_tree, parse_resolved
from tests.manifest.builders import problems, read

M = "models: {a: {from: builtin:tiny, search: true}}\n"
E = "models: {a: {from: builtin:tiny, search: true}, e: {from: builtin:tiny, task: embedding}}\n"

GOOD = [
    "search: {provider: searxng, url: 'https://search.example.org'}",
    "search: {provider: searxng, url: 'http://127.0.0.1:8888/', key: {from_env: K}, results: 10, pages: 0}",
    "search: {provider: brave, key: {from_env: K}, max_bytes: 1MiB, timeout: 5s}",
    "search: {provider: brave, key: {from_file: ./k}, url: 'https://proxy.example.org/search'}",
    "search: {provider: brave, key: {from_env: K}, allow: ['*.example.org', '*'], deny: [ads.example.org]}",
    "search: {provider: mcp, server: d, tool: find}\nmcp: {d: {url: 'https://h.example.org/mcp'}}",
]


@pytest.mark.parametrize("text", GOOD)
def test_searches_are_accepted(text: str) -> None:
    assert problems(M + text) == []
    manifest = read(M + text).manifest
    assert parse_resolved(manifest_to_tree(manifest)) == manifest


def test_the_embedding_model_is_one_of_the_manifest() -> None:
    assert problems(E + "search: {provider: searxng, url: 'https://h', embed: e}") == []


MISTAKES = [
    (M, "models.a.search: the manifest declares no search (search: {provider: searxng, url: https://HOST})"),
    (M + "search: {provider: searxng}", "search.url: provider: searxng needs it (url: https://search.example.org)"),
    (M + "search: {provider: brave}", "search.key: provider: brave needs it (key: {from_env: BRAVE_API_KEY})"),
    (M + "search: {provider: mcp, server: d}", "search.tool: provider: mcp needs it"),
    (M + "search: {provider: mcp, server: d, tool: t}", "search.server: there is no server of tools 'd'"),
    (
        M + "search: {provider: searxng, url: 'https://h', tool: t}",
        "search.tool: has no meaning with provider: searxng (remove tool)",
    ),
    (M + "search: {provider: google}", "search.provider: expected one of searxng, brave, mcp, got 'google'"),
    (
        E + "search: {provider: searxng, url: 'https://h', embed: b}",
        "search.embed: there is no model 'b'",
    ),
    (
        E + "search: {provider: searxng, url: 'https://h', embed: a}",
        "search.embed: a is a model for chat (name one with task: embedding)",
    ),
    (
        M.replace("search", "task: embedding, search") + "search: {provider: searxng, url: 'https://h'}",
        "models.a.search: a model for embedding calls no tools (remove search)",
    ),
    (
        M + "search: {provider: searxng, url: 'https://u:p@h'}",
        "search.url: the address of a search engine has no user name (key: {from_env: NAME})",
    ),
    (M + "search: {provider: searxng, url: 'https://h/?k=1'}", "search.url: 'https://h/?k=***' is not the address of"),
    (M + "search: {provider: searxng, url: 'http://169.254.169.254/'}", "search.url:"),
    (M + "search: {provider: brave, key: {}}", "search.key: expected one of from_env and from_file"),
    (M + "search: {provider: brave, key: abc}", "search.key:"),
    (
        M + "search: {provider: searxng, url: 'https://h', deny: [a.org, a.org]}",
        "search.deny[1]: a.org is listed twice (keep one of them)",
    ),
    (M + "search: {provider: searxng, url: 'https://h', allow: ['https://a.org/']}", "search.allow[0]:"),
    (M + "search: {provider: searxng, url: 'https://h', results: 0}", "search.results:"),
    (M + "search: {provider: searxng, url: 'https://h', uri: x}", "search.uri: no such field (did you mean url?)"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_a_mistake_names_its_place_and_the_remedy(text: str, message: str) -> None:
    assert any(message in problem for problem in problems(text)), problems(text)
    assert not any("abc" in problem for problem in problems(text))


def test_a_key_without_encryption_is_a_warning() -> None:
    text = M + "search: {provider: searxng, url: 'http://h.example.org', key: {from_env: K}}"
    assert any("search.url: the key is sent without encryption" in str(one) for one in read(text).warnings)
    assert not read(text.replace("h.example.org", "127.0.0.1:8888")).warnings
