"""Servers of tools in the manifest: addresses, commands, secrets, and the models and keys that name them."""

from __future__ import annotations

import pytest

from tests.manifest.builders import problems, read

D = "mcp: {docs: {url: 'https://mcp.example.org/mcp'}}\n"
M = "models: {a: {from: builtin:tiny, mcp: [docs]}}\n"

GOOD = [
    "url: 'https://mcp.example.org/mcp', headers: {Authorization: {from_env: T}}, tools: [search, 'read_*']",
    "url: 'http://127.0.0.1:8000/mcp', timeout: 5s, result: 16KiB",
    "url: 'http://10.0.0.7/mcp?team=a'",
    "from_host: filesystem",
]


@pytest.mark.parametrize("text", GOOD)
def test_servers_are_accepted(text: str) -> None:
    assert problems(M + f"mcp: {{docs: {{{text}}}}}") == []


MISTAKES = [
    (
        M.replace("docs", "dosc") + D,
        "m.yaml:2:40: models.a.mcp[0]: there is no server of tools 'dosc' (did you mean docs?)",
    ),
    (M, "models.a.mcp[0]: there is no server of tools 'docs' (mcp: {NAME: {url: https://HOST/mcp}} declares one)"),
    (D + "models: {a: {from: builtin:tiny, mcp: [docs, docs]}}", "models.a.mcp[1]: docs is listed twice"),
    (
        D + "models: {a: {from: builtin:tiny, task: embedding, mcp: [docs]}}",
        "models.a.mcp: a model for embedding calls no tools (remove mcp)",
    ),
    (
        D + M + "auth: {keys: {k: {secret: {from_env: K}, mcp: [doc]}}}",
        "auth.keys.k.mcp[0]: there is no server of tools 'doc' (did you mean docs?)",
    ),
    (
        M + "mcp: {docs: {command: npx, url: 'https://h/mcp'}}",
        "m.yaml:3:14: mcp.docs.command: a manifest runs no program (list it in /etc/mullama/mcp.json of the machine, "
        "then from_host: NAME)",
    ),
    (M + "mcp: {docs: {url: 'https://h/mcp', args: [-y]}}", "mcp.docs.args: a manifest runs no program"),
    (
        M + "mcp: {docs: {url: 'https://h/mcp', timeot: 3s}}",
        "mcp.docs.timeot: no such field (did you mean timeout?)",
    ),
    (
        M + "mcp: {docs: {tools: [a]}}",
        "mcp.docs: expected one of url and from_host (url: https://HOST/mcp, or from_host: NAME)",
    ),
    (M + "mcp: {docs: {url: 'https://h/mcp', from_host: x}}", "mcp.docs: expected one of url and from_host"),
    (
        M + "mcp: {docs: {from_host: x, headers: {A: {from_env: T}}}}",
        "mcp.docs.headers: are for a server by url (a command gets its environment from the host file)",
    ),
    (
        M
        + "mcp: {docs: {from_host: x, oauth: {token_url: 'https://l/t', client_id: c, client_secret: {from_env: S}}}}",
        "mcp.docs.oauth: is for a server by url",
    ),
    (
        M + "mcp: {docs: {url: 'https://h/mcp', headers: {authorization: {from_env: T}}, oauth: {"
        "token_url: 'https://l/t', client_id: c, client_secret: {from_env: S}}}}",
        "mcp.docs.oauth: headers has a token of its own (keep oauth or headers.Authorization)",
    ),
    (
        M
        + "mcp: {docs: {url: 'https://h/mcp', oauth: {token_url: 'https://l/t', client_id: c, client_secret: plain}}}",
        "mcp.docs.oauth.client_secret",
    ),
    (
        M + "mcp: {docs: {url: 'https://h/mcp', oauth: {token_url: 'https://l/t', client_id: c, client_secret: {}}}}",
        "mcp.docs.oauth.client_secret: expected one of from_env and",
    ),
    (M + "mcp: {docs: {url: 'https://h/mcp', tools: [a, b, a]}}", "mcp.docs.tools[2]: the tool a is listed twice"),
    (M + "mcp: {docs: {url: 'ftp://h/mcp'}}", "mcp.docs.url: 'ftp://h/mcp' is not the address of a server of tools"),
    (M + "mcp: {docs: {url: 'https://h/mcp#x'}}", "mcp.docs.url: 'https://h/mcp#x' is not the address of a server"),
    (
        M + "mcp: {docs: {url: 'https://u:pw@h/mcp'}}",
        "mcp.docs.url: the address of a server of tools has no user name (headers: {Authorization: {from_env: NAME}})",
    ),
    (M + "mcp: {docs: {url: 'http://169.254.169.254/x'}}", "mcp.docs.url: 169.254.169.254 is an address of the link"),
    (M + "mcp: {docs: {url: 'http://0xa9fea9fe/x'}}", "mcp.docs.url: 0xa9fea9fe is an address of the link"),
    (M + "mcp: {docs: {url: 'http://[fd00:ec2::254]/x'}}", "mcp.docs.url: fd00:ec2::254 is an address of the link"),
    (
        M
        + "mcp: {docs: {url: 'https://h/mcp', headers: {Authorization: {from_env: T}, authorization: {from_env: T}}}}",
        "mcp.docs.headers.Authorization: the header is there twice",
    ),
    (M + "mcp: {docs: {url: 'https://h/mcp', headers: {Host: {from_env: T}}}}", "the header Host is set by the server"),
    (M + "mcp: {docs: {url: 'https://h/mcp', headers: {A: {}}}}", "mcp.docs.headers.A: expected one of from_env and"),
    ("mcp: {a__b: {from_host: x}}", "mcp.a__b: 'a__b' is not a name of a server of tools (at most 32 letters"),
    ("mcp: {a_: {from_host: x}}", "mcp.a_: 'a_' is not a name of a server of tools"),
    ("mcp: {search: {from_host: x}}", "mcp.search: search is the name of tools of mullama itself (rename the server)"),
    (D + "models: {a: {from: builtin:tiny, mcp: [docs], approve: sometimes}}", "models.a.approve: expected never, alw"),
    (D + "models: {a: {from: builtin:tiny, mcp: [docs], approve: []}}", "models.a.approve: expected never, always, or"),
    (D + "models: {a: {from: builtin:tiny, mcp: [docs], approve: [w, w]}}", "models.a.approve[1]: w is listed twice"),
    (D + "models: {a: {from: builtin:tiny, mcp: [docs], tool_turns: 0}}", "models.a.tool_turns: must be at least 1"),
    (M + "mcp: {docs: {url: 'https://h/mcp', timeout: never}}", "mcp.docs.timeout: must be at most 3600"),
    (M + "mcp: {docs: {url: 'https://h/mcp', result: 1}}", "mcp.docs.result: must be at least 1024"),
]


@pytest.mark.parametrize(("text", "expected"), MISTAKES)
def test_a_mistake_has_its_place_and_a_hint(text: str, expected: str) -> None:
    found = problems(text)
    assert any(expected in line for line in found), found


def test_a_header_is_a_reference_and_its_text_is_never_shown() -> None:
    for value in ("Bearer canary", "'${CANARY}'", "{from_env: '${CANARY}'}"):
        (line,) = problems(
            M + f"mcp: {{docs: {{url: 'https://h/mcp', headers: {{Authorization: {value}}}}}}}",
            env={"CANARY": "canary"},
        )
        assert "secret" in line
        assert "canary" not in line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (D + "models: {a: builtin:tiny}", "mcp.docs: no model uses this server (models: {NAME: {mcp: [docs]}})"),
        (
            M + "mcp: {docs: {url: 'http://h.example.org/mcp', headers: {A: {from_env: T}}}}",
            "mcp.docs.url: the headers are sent without encryption (use https://)",
        ),
    ],
)
def test_a_server_that_is_odd_is_a_warning(text: str, expected: str) -> None:
    (warning,) = read(text).warnings
    assert expected in str(warning)


def test_the_defaults_are_those_of_the_reference() -> None:
    manifest = read(D + M + "auth: {keys: {k: {secret: {from_env: K}}}}").manifest
    server, model = manifest.mcp["docs"], manifest.models["a"]
    assert (server.tools, server.timeout, server.result) == (("*",), 30.0, 65_536)
    assert (model.tool_turns, model.approve, manifest.auth.keys["k"].mcp) == (8, "never", None)


def test_a_file_of_a_header_is_beside_the_manifest() -> None:
    manifest = read(M + "mcp: {docs: {url: 'https://h/mcp', headers: {A: {from_file: ./t}}}}").manifest
    assert manifest.mcp["docs"].headers["A"].from_file == "/srv/app/t"


def test_an_included_file_adds_servers_and_a_name_stands_once() -> None:
    files = {"more.yaml": "mcp: {web: {from_host: browser}}\nmodels: {b: {from: builtin:tiny, mcp: [web, docs]}}\n"}
    manifest = read("include: [more.yaml]\n" + D + M, files=files).manifest
    assert list(manifest.mcp) == ["docs", "web"]
    files = {"more.yaml": "mcp: {docs: {from_host: browser}}\n"}
    (line,) = problems("include: [more.yaml]\n" + D + M, files=files)
    assert "mcp.docs: this name is already used at m.yaml" in line


def test_a_profile_changes_a_server_and_replaces_a_reference_to_a_secret() -> None:
    text = (
        "mcp: {docs: {url: 'https://h/mcp', timeout: 9s, headers: {A: {from_env: T}}}}\n" + M
        + "profiles: {p: {mcp: {docs: {url: null, from_host: docs, headers: null}}},"
        " q: {mcp: {docs: {headers: {A: {from_file: ./t}}}}}}\n"
    )  # fmt: skip
    local = read(text, profiles=["p"]).manifest.mcp["docs"]
    assert (local.url, local.from_host, local.headers, local.timeout) == (None, "docs", {}, 9.0)
    header = read(text, profiles=["q"]).manifest.mcp["docs"].headers["A"]
    assert (header.from_env, header.from_file) == (None, "/srv/app/t")


def test_the_servers_of_a_model_come_from_its_layers() -> None:
    loaded = read(D + "defaults: {mcp: [docs]}\nmodels: {a: builtin:tiny, b: {from: builtin:tiny, mcp: []}}")
    assert (loaded.manifest.models["a"].mcp, loaded.manifest.models["b"].mcp) == (("docs",), ())
