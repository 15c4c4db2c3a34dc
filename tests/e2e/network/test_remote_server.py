"""Commands with a remote server: another folder and home, with nothing in common but an address and a key."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.stack import Stack, stack_in, tiny_variant
from tests.engines.llamacpp import builders
from tests.engines.llamacpp.media import projectors


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack_in(tmp_path_factory.mktemp("server")) as found:
        key = {"secret": {"from_file": "key"}, "roles": ["infer", "admin", "read"]}
        (found.home / "key").write_text("a-long-enough-key-for-a-test")
        (found.home / "key").chmod(0o600)
        settings = {"listen": ["127.0.0.1:0"], "dialects": ["openai"]}
        found.write({"own": {"from": "builtin:tiny"}}, server=settings, auth={"keys": {"me": key}})
        found.run("daemon", "start")
        yield found


@pytest.fixture
def here(empty_stack: Stack) -> Stack:
    """A folder with weights and the key, on another machine."""
    (empty_stack.home / "mine.gguf").write_bytes(tiny_variant(3))
    (empty_stack.home / "key").write_text("a-long-enough-key-for-a-test\n")
    return empty_stack


def there(server: Stack) -> tuple[str, ...]:
    return ("--host", server.url, "--key-file", "key")


def test_create_uploads_local_weights(server: Stack, here: Stack) -> None:
    (here.home / "Modelfile").write_text("FROM ./mine.gguf\nSYSTEM You are far away.\nPARAMETER num_ctx 512\n")
    created = here.run("create", "far", *there(server))
    assert "sending mine.gguf: 5.8 MiB" in created.stderr
    shown = here.json("show", "far", "--json", *there(server))
    assert shown["source"].startswith(str(server.home))
    assert shown["system"] == "You are far away."
    assert here.run("run", "far", "Hello", "--think=false", "-n", "3", *there(server)).stdout.strip()

    again = here.run("create", "far2", *there(server))
    assert "sending" not in again.stderr, "the server has the file"
    assert "SYSTEM You are far away." in here.run("show", "far2", "--modelfile", *there(server)).stdout


def test_pull_uploads_a_file(server: Stack, here: Stack) -> None:
    here.run("pull", "./mine.gguf", "--name", "pulled", *there(server))
    here.run("load", "pulled", *there(server))
    assert {"pulled", "own"} <= {m["name"] for m in here.json("list", "--json", *there(server))["models"]}
    assert here.json("tokenize", "hi", "-m", "pulled", "--json", *there(server))["count"] == 1
    here.run("unload", "pulled", *there(server))
    here.run("rm", "pulled", "-f", *there(server))


@pytest.mark.parametrize("beside", [True, False])
def test_run_uploads_a_projector_with_its_weights(server: Stack, here: Stack, beside: bool) -> None:
    name = "beside" if beside else "named"
    folder = here.home / name
    folder.mkdir()
    builders.llama(folder / f"{name}.gguf")
    projectors.llava(folder / ("mmproj-model.gguf" if beside else "eyes.gguf"))
    (here.home / "a.png").write_bytes(projectors.png(56, 56))
    option = () if beside else ("--mmproj", f"{name}/eyes.gguf")
    run = ("run", f"./{name}/{name}.gguf", "What?", "-i", "a.png", "-n", "2", *option, *there(server))
    ran = here.run(*run)
    assert ran.stderr.count("verifying") == 2
    assert "vision" in here.json("show", name, "--json", *there(server))["capabilities"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("pull", "./absent.gguf"), 3, "absent.gguf does not exist"),
        (("pull", "./m-00001-of-00002.gguf"), 4, "one part of several"),
        (("run", "none", "hi"), 3, "hint: "),
        (("rm", "own"), 10, "own is declared in"),
        (("create", "x"), 3, "has none of Mullamafile"),
    ],
)
def test_an_error_names_its_reason(
    server: Stack, here: Stack, arguments: tuple[str, ...], code: int, message: str
) -> None:
    (here.home / "m-00001-of-00002.gguf").write_bytes(b"GGUF")
    assert message in here.run(*arguments, *there(server), code=code).stderr


def test_without_the_key_nothing_is_printed(server: Stack, here: Stack) -> None:
    refused = here.run("list", "--host", server.url, code=7)
    assert refused.stderr.startswith("error: ")
    assert "own" not in refused.stdout
