"""The manifest that an export writes for a container serves as it is, with the secret from the environment."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx
import yaml

from tests.e2e.stack import stack_in


def test_the_exported_manifest_serves_the_models_behind_their_key(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    with stack_in(tmp_path / "own") as own:
        (own.home / "team.key").write_text("swordfish")
        (own.home / "team.key").chmod(0o600)
        own.write(
            {"demo": {"from": "builtin:tiny", "system": "costs $${X}"}},
            auth={"keys": {"team": {"secret": {"from_file": "./team.key"}}}},
            routes={"default": "demo"},
        )
        own.run("export", "compose", "-f", own.name, "-o", "deploy")
    (tmp_path / "container").mkdir()
    with stack_in(tmp_path / "container") as there:
        text = (own.home / "deploy/config/mullama.yaml").read_text()
        # A container has a network of its own; here the port may be taken.
        there.write_text(text.replace("0.0.0.0:11434", "127.0.0.1:0"))
        shutil.copytree(own.home / "deploy", there.home / "deploy")
        variables = yaml.safe_load((there.home / "deploy/compose.yaml").read_text())["services"]["mullama"][
            "environment"
        ]
        assert list(variables) == ["MULLAMA_AUTH_KEYS_TEAM_SECRET"]
        there.variables = {"MULLAMA_AUTH_KEYS_TEAM_SECRET": "swordfish"}
        there.serve()
        url = there.ready()
        body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
        assert httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).status_code == 401
        headers = {"Authorization": "Bearer swordfish"}
        answered = httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=60)
        assert (answered.status_code, answered.json()["model"]) == (200, "demo")
