"""Imperative commands over Ollama's endpoints, which edit the overlay."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.stack import TINY, Stack
from tests.official_clients import ollama


@pytest.fixture
def client(stack: Stack) -> Iterator[ollama.Client]:
    stack.apply()
    with ollama.Client(host=stack.url) as found:
        yield found


def names(client: ollama.Client) -> set[str]:
    return {str(m.model) for m in client.list().models}


def test_a_copy_serves_and_a_deleted_copy_does_not(stack: Stack, client: ollama.Client) -> None:
    client.copy("demo", "twin:v2")
    assert "twin:v2" in names(client)
    assert client.generate("twin:v2", "2+2=", options={"num_predict": 2}).done

    client.delete("twin:v2")

    assert "twin:v2" not in names(client)
    with pytest.raises(ollama.ResponseError) as caught:
        client.generate("twin:v2", "x")
    assert caught.value.status_code == 404


def test_a_name_of_the_manifest_is_protected_with_its_line(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        client.delete("demo")

    assert "mullama.yaml:" in caught.value.error
    assert "demo" in names(client)


def test_a_model_created_from_another_keeps_its_settings_and_adds_some(client: ollama.Client) -> None:
    parameters = {"temperature": 0.1, "num_ctx": 512}
    lines = client.create("pirate", from_="demo", system="You are a pirate.", parameters=parameters, stream=True)
    statuses = [line.status for line in lines]

    assert statuses[-1] == "success"
    shown = client.show("pirate")
    assert "0.1" in (shown.parameters or "")
    assert "512" in (shown.parameters or "")


def test_an_uploaded_file_becomes_a_model(stack: Stack, client: ollama.Client) -> None:
    data = TINY.read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    url = f"{stack.url}/api/blobs/{digest}"

    assert httpx.head(url, timeout=60).status_code == 404
    wrong = httpx.post(f"{stack.url}/api/blobs/sha256:{'0' * 64}", content=data, timeout=60)
    assert wrong.status_code == 400
    assert client.create_blob(TINY) == digest
    assert httpx.head(url, timeout=60).status_code == 200
    client.create("mine", files={"tiny.gguf": digest})

    assert client.generate("mine", "2+2=", options={"num_predict": 2}).done


def test_pull_adds_a_model_and_ends_with_success(client: ollama.Client) -> None:
    statuses = [s.status for s in client.pull("builtin:tiny", stream=True)]

    assert statuses[0] == "pulling manifest"
    assert statuses[-1] == "success"
    assert "tiny" in {n.removesuffix(":latest") for n in names(client)}


def test_the_overlay_survives_apply_restart_and_undo(stack: Stack, client: ollama.Client) -> None:
    client.copy("demo", "twin")

    stack.run("diff", "-f", stack.name, code=0)
    stack.write({"demo": {"from": "builtin:tiny", "description": "again"}})
    stack.apply()
    assert "twin" in names(client)

    stack.down()
    stack.apply()
    with ollama.Client(host=stack.url) as again:
        assert {"demo", "twin"} <= names(again)
