"""The manifests of `examples/` are validated, compared, applied and asked, with small weights for large ones."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from mullama.manifest.load import load
from tests.e2e.stack import TINY, Stack, replace_file
from tests.stub_hub import StubHub

pytestmark = pytest.mark.timeout(180)
ROOT = Path(__file__).parents[2]
SECRETS = ("mullama-apps", "mullama-batch", "mullama-deploy", "admin")
ENV = {"MULLAMA_LISTEN": "127.0.0.1:0", "MULLAMA_KEY": "team-secret"}


def localized(text: str) -> str:
    """The text of an example with a free port of loopback, and its secrets in this folder."""
    text = re.sub(r'"(0\.0\.0\.0|127\.0\.0\.1):11434"', '"127.0.0.1:0"', text)
    if "listen:" not in text:
        text += '\nserver: {listen: ["127.0.0.1:0"]}\n'
    return text.replace("/run/secrets/", "./secrets/")


def copy(example: str, stack: Stack) -> None:
    """Copy an example to the folder of the stack; `example` is a file, or a folder with a mullama.yaml."""
    source = ROOT / example
    if source.is_dir():
        shutil.copytree(source, stack.home, dirs_exist_ok=True)
        source /= "mullama.yaml"
    replace_file(stack.manifest, localized(source.read_text()))
    (stack.home / "secrets").mkdir(exist_ok=True)
    (stack.home / "gguf").mkdir(exist_ok=True)
    for name in SECRETS:
        path = stack.home / "secrets" / name
        path.touch(0o600)
        path.write_text(f"{name.removeprefix('mullama-')}-secret")


def stand_in(hub: StubHub, stack: Stack, *profiles: str) -> None:
    """Offer the built-in model under each repository and file that the manifest names."""
    manifest = load(str(stack.manifest), profiles=profiles, env=stack.env).manifest
    for model in manifest.models.values():
        if match := re.fullmatch(r"hf:([^:@]+):([^@]+)(@.*)?", model.from_):
            name = match[1].rpartition("/")[2].removesuffix("-GGUF")
            hub.repo(match[1], {f"{name}-{match[2]}.gguf": TINY.read_bytes()})


def ask(stack: Stack, key: str, model: str, *, embeds: bool = False) -> httpx.Response:
    question = {"input": "hi"} if embeds else {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    headers = {"authorization": f"Bearer {key}"} if key else {}
    url = f"{stack.url}/v1/{'embeddings' if embeds else 'chat/completions'}"
    return httpx.post(url, json={"model": model, **question}, headers=headers, timeout=60)


@pytest.mark.parametrize(
    ("example", "profiles", "key"),
    [
        ("mullama.yaml", (), ""),
        ("examples/minimal.yaml", (), ""),
        ("examples/team.yaml", ("laptop",), ""),
        ("examples/full.yaml", ("laptop", "ci"), "admin-secret"),
        ("examples/gitops.yaml", (), "apps-secret"),
        ("examples/gpu.yaml", (), ""),
        ("examples/include", (), ""),
        ("examples/container", (), "team-secret"),
    ],
    ids=lambda value: value.rpartition("/")[2] if isinstance(value, str) and "/" in value else None,
)
def test_an_example_is_applied_in_every_profile(
    example: str, profiles: tuple[str, ...], key: str, online: Stack, hub: StubHub
) -> None:
    stack = online
    stack.variables |= ENV
    copy(example, stack)
    for profile in (None, *profiles):
        options = ["-f", stack.name, *(["--profile", profile] if profile else [])]
        chosen = (profile,) if profile else ()
        stand_in(hub, stack, *chosen)
        stack.run("validate", *options)
        assert stack.json("diff", *options, "--format", "json", code=2)["steps"]
        stack.run("apply", *options, "--yes")
        stack.run("diff", *options, code=0)
        status: dict[str, Any] = stack.json("status", "-f", stack.name, "--json")
        assert status["state"] == "ready", status["conditions"]
        for name, model in load(str(stack.manifest), profiles=chosen, env=stack.env).manifest.models.items():
            answer = ask(stack, key, name, embeds=model.task == "embedding")
            assert answer.status_code == 200, (name, answer.text)
        assert ask(stack, key, "default").status_code == 200 or "default" not in status["routes"]
