"""`mullama clients`: the edits are shown, made and taken back byte for byte, and nobody's own change is lost."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Ran

Run = Callable[..., Ran]

MANIFEST = """mullama: v1
models: {chat: {from: 'builtin:tiny', context: {size: 4096}}, other: 'builtin:tiny'}
clients:
  codex: chat
  opencode: {model: chat, key: {from_env: TEAM_KEY}}
"""
CODEX = b"# mine\r\nmodel = 'gpt-5' # paid\r\n\r\n[tools]\r\nweb = true\r\n"
OPENCODE = b'{\n  // mine\n  "theme": "dark",\n}\n'


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mullama.yaml").write_text(MANIFEST)
    home = tmp_path / "home"
    home.mkdir()
    for name in ("XDG_CONFIG_HOME", "CODEX_HOME", "OPENCODE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    return home


def codex(home: Path) -> Path:
    return home / ".codex/config.toml"


def opencode(home: Path) -> Path:
    return home / ".config/opencode/opencode.json"


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_diff_shows_the_edits_and_changes_nothing(run: Run, home: Path) -> None:
    put(codex(home), CODEX)
    ran = run("clients", "diff")
    assert ran.code == 2
    assert '  ~ model: "gpt-5" -> "chat"' in ran.out
    assert '  + model_providers.mullama.base_url: "http://127.0.0.1:11434/v1"' in ran.out
    assert f"opencode  {opencode(home)}  (new file)" in ran.out
    assert "  + provider.mullama.models.chat.limit.context: 4096" in ran.out
    assert "2 files to change" in ran.out
    assert codex(home).read_bytes() == CODEX
    assert not opencode(home).exists()


def test_diff_as_json_has_each_field(run: Run, home: Path) -> None:
    tree = json.loads(run("clients", "diff", "opencode", "--json").out)
    assert tree["format"] == "mullama.clients/1"
    [file] = tree["files"]
    assert (file["client"], file["path"], file["new"]) == ("opencode", str(opencode(home)), True)
    fields = {change["path"]: change["after"] for change in file["changes"]}
    assert fields["provider.mullama.options.apiKey"] == '"{env:TEAM_KEY}"'


def test_apply_edits_and_undo_restores_every_byte(run: Run, home: Path) -> None:
    put(codex(home), CODEX)
    put(opencode(home), OPENCODE)
    opencode(home).chmod(0o640)

    assert run("clients", "apply", "--yes").code == 0

    tree = tomllib.loads(codex(home).read_text())
    assert (tree["model"], tree["model_provider"], tree["tools"]) == ("chat", "mullama", {"web": True})
    assert "// mine" in opencode(home).read_text()
    again = run("clients", "diff")
    assert (again.code, "nothing to change" in again.out) == (0, True)
    assert "nothing to change" in run("clients", "apply", "--yes").out

    assert run("clients", "undo", "--yes").code == 0

    assert codex(home).read_bytes() == CODEX
    assert opencode(home).read_bytes() == OPENCODE
    assert opencode(home).stat().st_mode & 0o777 == 0o640
    assert "nothing to undo" in run("clients", "undo", "--yes").out


def test_a_file_that_apply_made_is_removed_with_its_folders(run: Run, home: Path) -> None:
    assert run("clients", "apply", "--yes").code == 0
    assert codex(home).exists()
    assert run("clients", "undo", "--yes").code == 0
    assert not {".codex", ".config"} & {path.name for path in home.iterdir()}


def test_one_client_is_applied_and_undone_alone(run: Run, home: Path) -> None:
    assert run("clients", "apply", "codex", "--yes").code == 0
    assert not opencode(home).exists()
    assert run("clients", "apply", "--yes").code == 0
    assert run("clients", "undo", "codex", "--yes").code == 0
    assert not codex(home).exists()
    assert opencode(home).exists()


def test_a_change_since_the_apply_is_drift_and_comes_back_by_apply(run: Run, home: Path) -> None:
    assert run("clients", "apply", "--yes").code == 0
    text = codex(home).read_text()
    codex(home).write_text(text.replace('"chat"', '"gpt-5"') + "# mine\n")

    ran = run("clients", "diff")

    assert (ran.code, '~ model: "gpt-5" -> "chat"  (drift)' in ran.out) == (2, True)
    assert "opencode" not in ran.out
    assert run("clients", "apply", "--yes").code == 0
    assert codex(home).read_text() == text + "# mine\n"


def test_an_undo_keeps_a_file_that_was_changed_since(run: Run, home: Path) -> None:
    put(codex(home), CODEX)
    assert run("clients", "apply", "--yes").code == 0
    changed = codex(home).read_bytes() + b"# mine\r\n"
    codex(home).write_bytes(changed)

    ran = run("clients", "undo", "--yes")

    assert (ran.code, f"kept: {codex(home)} was changed" in ran.err) == (8, True)
    assert codex(home).read_bytes() == changed
    assert not opencode(home).exists()

    assert run("clients", "undo", "--yes", "--force").code == 0
    assert codex(home).read_bytes() == CODEX
    assert (codex(home).parent / "config.toml.kept-1").read_bytes() == changed


def test_a_file_that_was_removed_since_is_not_made_again(run: Run, home: Path) -> None:
    put(codex(home), CODEX)
    assert run("clients", "apply", "--yes").code == 0
    codex(home).unlink()
    assert run("clients", "undo", "--yes").code == 8
    assert not codex(home).exists()


def test_each_undo_takes_one_apply_back_and_all_takes_all(run: Run, home: Path) -> None:
    put(codex(home), CODEX)
    assert run("clients", "apply", "--yes").code == 0
    first = codex(home).read_bytes()
    change_model(home)
    assert run("clients", "apply", "--yes").code == 0
    assert b'"other"' in codex(home).read_bytes()

    assert run("clients", "undo", "--yes").code == 0
    assert codex(home).read_bytes() == first
    assert run("clients", "apply", "--yes").code == 0
    assert run("clients", "undo", "--yes", "--all").code == 0
    assert codex(home).read_bytes() == CODEX


def change_model(home: Path) -> None:
    (home.parent / "mullama.yaml").write_text(
        MANIFEST.replace("codex: chat", "codex: other").replace("model: chat,", "model: other,")
    )


def test_fields_of_an_earlier_apply_are_gone(run: Run, home: Path) -> None:
    """The entry of a model that is not declared any more, and the key of a server that has none now."""
    put(opencode(home), OPENCODE)
    assert run("clients", "apply", "--yes").code == 0
    (home.parent / "mullama.yaml").write_text(MANIFEST.replace("{model: chat, key: {from_env: TEAM_KEY}}", "other"))

    ran = run("clients", "diff")

    assert '- provider.mullama.options.apiKey: "{env:TEAM_KEY}"' in ran.out
    assert '- provider.mullama.models.chat.name: "chat"' in ran.out
    assert run("clients", "apply", "--yes").code == 0
    text = opencode(home).read_text()
    assert "TEAM_KEY" not in text
    assert '"chat"' not in text
    assert "// mine" in text
    assert run("clients", "undo", "--yes", "--all").code == 0
    assert opencode(home).read_bytes() == OPENCODE


def test_the_edits_of_a_client_that_is_not_declared_any_more_are_taken_back(run: Run, home: Path) -> None:
    put(codex(home), CODEX)
    assert run("clients", "apply", "--yes").code == 0
    change_model(home)
    assert run("clients", "apply", "--yes").code == 0
    (home.parent / "mullama.yaml").write_text(MANIFEST.replace("  codex: chat\n", ""))

    ran = run("clients", "diff")
    assert (ran.code, f"codex  {codex(home)}  (not declared any more" in ran.out) == (2, True)
    assert json.loads(run("clients", "diff", "--json").out)["undeclared"] == [
        {"client": "codex", "path": str(codex(home))}
    ]
    assert run("clients", "apply", "--yes").code == 0
    assert codex(home).read_bytes() == CODEX
    assert run("clients", "diff").code == 0


def test_a_file_of_a_client_that_others_have_changed_is_kept(run: Run, home: Path) -> None:
    assert run("clients", "apply", "--yes").code == 0
    changed = codex(home).read_bytes() + b"# mine\n"
    codex(home).write_bytes(changed)
    (home.parent / "mullama.yaml").write_text(MANIFEST.partition("clients:")[0])
    ran = run("clients", "apply", "--yes")
    assert (ran.code, "kept:" in ran.err) == (8, True)
    assert codex(home).read_bytes() == changed
    assert not opencode(home).exists()


def test_a_file_at_another_place_takes_the_edits_with_it(run: Run, home: Path) -> None:
    put(codex(home), CODEX)
    assert run("clients", "apply", "--yes").code == 0
    (home.parent / "mullama.yaml").write_text(MANIFEST.replace("codex: chat", "codex: {model: chat, file: ./my.toml}"))
    assert run("clients", "apply", "--yes").code == 0
    assert codex(home).read_bytes() == CODEX
    assert (home.parent / "my.toml").exists()


def test_records_of_another_manifest_are_not_touched(run: Run, home: Path) -> None:
    assert run("clients", "apply", "--yes").code == 0
    (home.parent / "other.yaml").write_text("mullama: v1\nmodels: {chat: 'builtin:tiny'}\nclients: {llm: chat}\n")
    assert run("clients", "apply", "-f", "other.yaml", "--yes").code == 0
    assert codex(home).exists()
    assert run("clients", "undo", "-f", "other.yaml", "--yes", "--all").code == 0
    assert codex(home).exists()


def test_an_undo_needs_no_valid_manifest(run: Run, home: Path) -> None:
    put(codex(home), CODEX)
    assert run("clients", "apply", "--yes").code == 0
    (home.parent / "mullama.yaml").write_text("mullama: v1\nmodels: [")
    assert run("clients", "undo", "--yes").code == 0
    assert codex(home).read_bytes() == CODEX


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"model = 'x'\nmodel =\n", "config.toml:2:8: not valid TOML"),
        (b"model = 'x'\n# \xff\n", "config.toml:2:3: the file is not UTF-8"),
        (b"model_providers = 1\n", "model_providers is not a map"),
    ],
)
def test_a_damaged_file_stops_everything(run: Run, home: Path, data: bytes, message: str) -> None:
    put(codex(home), data)
    ran = run("clients", "apply", "--yes")
    assert ran.code in (4, 9)
    assert message in ran.err
    assert codex(home).read_bytes() == data
    assert not opencode(home).exists()


def test_nothing_is_written_without_a_yes(run: Run, home: Path) -> None:
    ran = run("clients", "apply")
    assert (ran.code, "--yes makes them" in ran.err) == (9, True)
    ran = run("clients", "apply", tty=True, stdin="n\n")
    assert (ran.code, codex(home).exists()) == (9, False)
    assert run("clients", "apply", tty=True, stdin="y\n").code == 0
    assert codex(home).exists()
    assert run("clients", "undo", tty=True, stdin="n\n").code == 9
    assert codex(home).exists()


def test_the_other_name_of_a_file_is_used_where_it_exists(run: Run, home: Path) -> None:
    path = opencode(home).with_suffix(".jsonc")
    put(path, OPENCODE)
    assert run("clients", "apply", "opencode", "--yes").code == 0
    assert b"mullama" in path.read_bytes()
    assert not opencode(home).exists()


def test_a_file_of_the_manifest_is_edited_in_its_folder(run: Run, home: Path) -> None:
    (home.parent / "mullama.yaml").write_text(MANIFEST.replace("codex: chat", "codex: {model: chat, file: ./my.toml}"))
    assert run("clients", "apply", "codex", "--yes").code == 0
    assert (home.parent / "my.toml").exists()
    assert not codex(home).exists()


def test_what_a_person_must_know_is_noted(run: Run, home: Path) -> None:
    (home.parent / "mullama.yaml").write_text(MANIFEST.replace("codex: chat", "claude-code: chat\n  open-webui: chat"))
    ran = run("clients", "diff")
    assert "note: claude-code: Claude Code compacts a conversation at 100000 tokens" in ran.err
    assert "note: open-webui: Open WebUI has no configuration file" in ran.err


@pytest.mark.parametrize(
    ("client", "field"),
    [
        ("codex: chat", "models.chat.context.size: 32768"),
        ("codex: by-route", "models.chat.context.size: 32768"),
        ("claude-code: {model: chat, context: 8192}", "clients.claude-code.context: 65536"),
        ("aider: chat", "models.chat.context.size: 16384"),
    ],
)
def test_a_context_that_is_small_for_a_client_is_noted_with_its_field(
    run: Run, home: Path, client: str, field: str
) -> None:
    text = MANIFEST.partition("clients:")[0] + f"routes: {{by-route: chat}}\nclients: {{{client}}}\n"
    (home.parent / "mullama.yaml").write_text(text)
    name = client.partition(":")[0]
    for ran in (run("clients", "diff"), run("launch", name, "--print")):
        assert f"write {field}" in ran.err
    (home.parent / "mullama.yaml").write_text(text.replace("4096", "65536").replace("8192", "65536"))
    for ran in (run("clients", "diff"), run("launch", name, "--print")):
        assert "write " not in ran.err


@pytest.mark.parametrize(
    ("clients", "arguments", "code", "message"),
    [
        ("codex: chat", ("diff", "codx"), 4, "did you mean codex"),
        ("codex: chat", ("diff", "zed"), 3, "the manifest does not declare zed"),
        ("codx: chat", ("diff",), 4, "mullama.yaml:4:3: clients.codx: mullama does not configure 'codx'"),
        ("codex: caht", ("diff",), 4, "clients.codex.model: there is no model or route 'caht' (did you mean chat?)"),
        ("codex: {}", ("diff",), 4, "clients.codex names no model, and the manifest has no default"),
        ("codex: {model: chat, key: {from_file: ./k}}", ("diff",), 4, "from_file"),
        ("codex: {model: chat, url: 'http://me:pw@h'}", ("diff",), 4, "the address of a client has no secret"),
        ("codex: chat", ("apply", "--all"), 4, "--all and --force are for mullama clients undo"),
        ("codex: chat", ("undo", "--json"), 4, "prints no JSON"),
    ],
)
def test_mistakes_have_their_place(
    run: Run, home: Path, clients: str, arguments: tuple[str, ...], code: int, message: str
) -> None:
    head = MANIFEST.partition("clients:")[0]
    (home.parent / "mullama.yaml").write_text(f"{head}clients:\n  {clients}\n")
    ran = run("clients", *arguments)
    assert ran.code == code
    assert message in ran.err


def test_a_client_without_a_key_of_a_server_with_keys_is_a_warning(run: Run, home: Path) -> None:
    keys = "auth: {keys: {me: {secret: {from_env: TEAM_KEY}}}}\n"
    (home.parent / "mullama.yaml").write_text(MANIFEST + keys)
    ran = run("clients", "diff")
    assert "clients.codex: the server has keys, and this client sends none" in ran.err
    assert "clients.opencode: the server has keys" not in ran.err


@pytest.mark.parametrize(
    ("listen", "message"),
    [("127.0.0.1:0", "the port of the server is not known before it runs"), ("unix:./s", "clients need a port")],
)
def test_an_address_that_clients_cannot_use_is_refused(run: Run, home: Path, listen: str, message: str) -> None:
    (home.parent / "mullama.yaml").write_text(f'{MANIFEST}server: {{listen: ["{listen}"]}}\n')
    ran = run("clients", "diff")
    assert (ran.code, message in ran.err) == (4, True)


def test_the_default_model_and_an_address_of_its_own_are_used(run: Run, home: Path) -> None:
    (home.parent / "mullama.yaml").write_text(
        MANIFEST.replace("codex: chat", "codex: {url: 'https://llm.example.org/v1', context: 1000}")
        + "routes: {default: other}\n"
    )
    assert run("clients", "apply", "codex", "--yes").code == 0
    tree = tomllib.loads(codex(home).read_text())
    assert (tree["model"], tree["model_context_window"]) == ("other", 1000)
    assert tree["model_providers"]["mullama"]["base_url"] == "https://llm.example.org/v1"
