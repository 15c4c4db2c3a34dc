"""The report of API keys: rights, limits and use of each, and nothing of a secret."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from mullama.controller.telemetry.key_report import key_report
from mullama.manifest.spec import Manifest
from mullama.store.usage import UsageFile, UsageRow
from tests.runtime.runtime_fixture import LocalServer

KEYS = {
    "ci": {"secret": {"from_env": "CI_KEY"}, "rate": {"requests": "60/m"}, "models": ["a*"], "priority": 3},
    "ops": {"secret": {"from_file": "/run/ops"}, "roles": ["admin"], "mcp": []},
}
MANIFEST = Manifest.model_validate({"mullama": "v1", "auth": {"keys": KEYS}})
USED = {"key": "ci", "requests": 5, "errors": 1, "prompt_tokens": 70, "generated_tokens": 9, "cached_tokens": 3}


def test_a_key_has_its_rights_and_its_use() -> None:
    limit = {"limit": "auth.keys.ci.rate.requests", "unit": "requests", "remaining": 59}
    report = key_report(MANIFEST, {"ci"}, {"ci": [limit]}, [USED], {"ci": 1200})
    ci, ops = report["keys"]
    assert ci == {
        "name": "ci", "roles": ["infer"], "models": ["a*"], "mcp": None, "priority": 3, "secret": "from_env CI_KEY",
        "in_force": True, "limits": [limit], "last_used": 1200,
        "usage": {"requests": 5, "errors": 1, "prompt_tokens": 70, "generated_tokens": 9},
    }  # fmt: skip
    assert (ops["secret"], ops["in_force"], ops["limits"], ops["last_used"]) == ("from_file /run/ops", False, [], None)
    assert (ops["usage"]["requests"], ops["mcp"]) == (0, [])


def test_without_records_the_use_is_unknown_and_not_zero() -> None:
    report = key_report(MANIFEST, (), {}, None, {})
    assert report["days"] is None
    assert [key["usage"] for key in report["keys"]] == [None, None]


def test_the_last_use_is_the_newest_minute_that_is_kept(tmp_path: Path) -> None:
    file = UsageFile(tmp_path / "usage.sqlite")
    assert file.last_used() == {}
    rows = [(86_400 * 40 + 60, "ci"), (86_400 * 40 + 7260, "ci"), (86_400 * 3, "ops")]
    file.add(UsageRow(minute=minute, key=key, route="a", model="a", sums=(1.0,) * 9) for minute, key in rows)
    assert file.last_used() == {"ci": 86_400 * 40 + 7260, "ops": 86_400 * 3}
    file.purge(1e9, 86_400 * 60)  # minutes are kept for two days
    assert file.last_used()["ci"] == 86_400 * 40 + 7200


@pytest.mark.anyio
async def test_no_secret_and_no_digest_is_in_the_answer(server: LocalServer) -> None:
    server.env["CI_KEY"] = "a-very-secret-key"  # type: ignore[index]
    key = {"secret": {"from_env": "CI_KEY"}, "quota": {"tokens": "5M/d"}}
    limits = {"rate_per_key": {"requests": "10/m"}, "rate": {"requests": "90/m"}}
    await server.apply({"a": {"from": server.script(), "limits": limits}}, auth={"keys": {"ci": key}})
    report = await server.operator.key_report()
    [ci] = report["keys"]
    assert ci["in_force"]
    assert [row["limit"] for row in ci["limits"]] == [
        "auth.keys.ci.quota.tokens",
        "models.a.limits.rate_per_key.ci.requests",
    ]
    text = json.dumps(report)
    assert "a-very-secret-key" not in text
    assert hashlib.sha256(b"a-very-secret-key").hexdigest() not in text
