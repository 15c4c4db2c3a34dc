"""`unload` names the models that share the context, and so are unloaded too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.cli.conftest import Ran
from tests.cli.tinyserver import Answer, TinyServer


def loaded(name: str, own: int = 0, shared_with: str | None = None) -> dict[str, Any]:
    return {"name": name, "memory": 9, "memory_own": own, "shared_with": shared_with}


@pytest.mark.parametrize(
    ("name", "also"),
    [
        ("chat", ", and with it brief (same context)"),
        ("other", ", and with it chat (same context)"),
        ("long", ""),
        ("cold", ""),
    ],
)
def test_unload_names_the_models_with_the_same_context(
    run: Callable[..., Ran], tiny: TinyServer, name: str, also: str
) -> None:
    models = [
        loaded("chat", 9),
        loaded("brief", 0, "chat"),
        loaded("long", 4, "chat"),
        {"name": "cold", "memory": None},
    ]
    tiny.answers["GET /api/v1/status"] = Answer({"models": models, "routes": {"other": "brief"}})
    tiny.answers[f"POST /api/models/{name}/unload"] = Answer({})
    tiny.answers[f"GET /api/models/{name}"] = Answer({"loaded": False})

    ran = run("unload", name, "--host", str(tiny.address))

    assert ran.out == f"{name} is unloaded{also}\n"
