"""The manifest of a container: its address, its secrets, and what it cannot have."""

from __future__ import annotations

import pytest
import yaml

from mullama.errors import Refused, Unsupported
from mullama.export.container import container_parts, require_no_files, stop_seconds
from tests.export.builders import given
from tests.manifest.builders import read


@pytest.mark.parametrize(
    ("listen", "port"),
    [
        ("['127.0.0.1:8080', '0.0.0.0:9000']", 8080),
        ("['unix:/run/m.sock', '[::1]:9000']", 9000),
        ("['unix:/run/m.sock']", 11434),
        ("['127.0.0.1:0']", 11434),
    ],
)
def test_a_container_listens_on_all_addresses_at_the_declared_port(listen: str, port: int) -> None:
    parts = container_parts(given(f"server: {{listen: {listen}}}\nmodels: {{a: 'builtin:tiny'}}"), ("llm",))
    assert parts.port == port
    assert parts.manifest.server.listen == (f"0.0.0.0:{port}",)
    assert parts.manifest.server.allowed_hosts == ("llm",)


def test_the_text_reads_as_the_manifest_of_the_container() -> None:
    text = """
        server: {allowed_hosts: [llm.example.org]}
        models: {a: {from: 'builtin:tiny', system: 'costs $${X} and $$5', parameters: {temperature: 0.2}}}
        routes: {default: a, b: {to: [{model: a, weight: 3}], force: {seed: 1}}}
        observability: {webhooks: [{url: {from_env: HOOK}, events: [applied]}]}
    """
    parts = container_parts(given(text), ("llm.example.org",))
    assert read(parts.text).manifest == parts.manifest
    assert parts.manifest.models["a"].system == "costs ${X} and $$5"
    assert parts.manifest.server.allowed_hosts == ("llm.example.org",)
    assert "temperature" in parts.text
    assert "top_p" not in parts.text


def test_each_secret_is_a_variable_of_the_environment() -> None:
    text = """
        auth:
          keys:
            team: {secret: {from_env: SHARED, optional: true}}
            admin: {secret: {from_file: /secrets/admin}}
        sources: {hf: {token: {from_env: SHARED}}}
        sync: {git: {url: 'https://git.example.org/r.git', token: {from_file: /secrets/git, optional: true}}}
        observability: {otlp: {endpoint: 'https://o.example.org', headers: {Authorization: {from_env: OTLP}}}}
        models: {a: {from: 'https://h.example.org/a.gguf?token=from_env:DOWNLOAD', digest: 'sha256:%s'}}
    """ % ("0" * 64)
    parts = container_parts(given(text))
    assert [(v.name, v.optional, v.use) for v in parts.variables] == [
        ("DOWNLOAD", False, "the address https://h.example.org/a.gguf?token=from_env:DOWNLOAD"),
        ("MULLAMA_AUTH_KEYS_ADMIN_SECRET", False, "auth.keys.admin.secret"),
        ("MULLAMA_SYNC_GIT_TOKEN", True, "sync.git.token"),
        ("OTLP", False, "observability.otlp.headers.Authorization"),
        ("SHARED", False, "auth.keys.team.secret"),
    ]
    assert "from_file" not in parts.text
    keys = yaml.safe_load(parts.text)["auth"]["keys"]
    assert keys["admin"]["secret"] == {"from_env": "MULLAMA_AUTH_KEYS_ADMIN_SECRET"}


@pytest.mark.parametrize(
    "text",
    [
        "models: {a: {from: 'https://h.example.org/a.gguf?token=abc', digest: 'sha256:%s'}}" % ("0" * 64),
        "models: {a: 'builtin:tiny'}\nsync: {git: {url: 'https://git.example.org/r.git?key=abc'}}",
    ],
)
def test_a_secret_in_an_address_is_not_written(text: str) -> None:
    with pytest.raises(Refused, match="has a secret") as raised:
        container_parts(given(text))
    assert "abc" not in str(raised.value)
    assert "from_env:NAME" in raised.value.hint


def test_a_manifest_without_keys_is_refused() -> None:
    with pytest.raises(Refused, match=r"auth\.keys is empty"):
        container_parts(given("auth: {keys: {}}\nmodels: {a: 'builtin:tiny'}"))


def test_local_files_are_listed_and_folders_of_this_machine_left_out() -> None:
    text = """
        sources: {stores: {gguf: [./gguf], ollama: auto}}
        models: {a: {from: ./w.gguf, adapters: [{from: ./l.gguf}]}, b: {from: 'builtin:tiny', draft: ./d.gguf}}
    """
    parts = container_parts(given(text))
    assert parts.weights == ("/srv/app/d.gguf", "/srv/app/l.gguf", "/srv/app/w.gguf")
    assert parts.manifest.sources.stores.gguf == ()
    assert any("sources.stores.gguf" in note for note in parts.notes)
    with pytest.raises(Unsupported, match=r"a pod does not have /srv/app/d\.gguf"):
        require_no_files(parts, "a pod")


def test_the_stop_waits_for_the_longest_drain() -> None:
    text = "models: {a: {from: 'builtin:tiny', rollout: {drain_timeout: 5m}}, b: 'builtin:tiny'}"
    assert stop_seconds(given(text).manifest) == 330


def test_the_certificate_is_a_file_of_the_container() -> None:
    tls = "server: {tls: {cert: ./c.pem, key: ./k.pem, client_ca: ./ca.pem}}\nmodels: {a: 'builtin:tiny'}"
    parts = container_parts(given(tls))
    assert parts.tls == {"tls.crt": "/srv/app/c.pem", "tls.key": "/srv/app/k.pem", "ca.crt": "/srv/app/ca.pem"}
    inside = parts.manifest.server.tls
    assert inside is not None
    assert (inside.cert, inside.key, inside.client_ca) == tuple(
        f"/run/mullama-tls/{name}" for name in ("tls.crt", "tls.key", "ca.crt")
    )
