"""MiniLM through a real server: its tokens and vectors are those of an independent implementation of BERT."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from benches.real_models import MINILM, MINILM_FOLDER
from tests.e2e.stack import Stack, serving
from tests.official_clients import ollama, openai
from tests.real.bert import Array, Reference
from tests.real.conftest import real_file

pytestmark = pytest.mark.real

CLOSE = 1e-3  # 1 - cosine of a vector and its reference; weights of 16 bits give some 1e-6
TEXTS = [
    "Hello world",
    "The quick brown fox jumps over the lazy dog.",
    "Crème brûlée à la façon d'Élodie, naïve Ångström, Łódź, Straße",
    "a\u0301e\u0308 written with combining marks, zero\u200bwidth, soft\u00adhyphen",
    "東京都の人口は何人ですか？ 我爱北京天安门，繁體也可以。",
    "한국어 텍스트 입니다, 띄어쓰기 포함",
    "Привет мир, Ёлка. Ελληνικά Άλφα. ไทย العربية",
    "don't pay $5.00 for ^_^ at e-mail@example.org `code` ~a|b<c> 1,000.50€",
    "Tabs\tand\nlines\r\nand   many \u3000 spaces",
    "a party 🎉🎉 with İstanbul, ǅ, ﬁne and ℌ",
    "（全角）、。「」 ＡＢＣ",
    "x" * 90,
    "a sentence that is repeated until it is too long for the model " * 60,
]


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference(real_file(MINILM_FOLDER))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    model = {"from": str(real_file(MINILM)), "task": "embedding"}
    declared = {"prompts": {"query": "query: ", "passage": "passage: "}, "default_prompt": "passage", "dimensions": 128}
    models = {"minilm": model, "search": {**model, "embedding": declared}}
    with serving(tmp_path_factory.mktemp("minilm"), models) as found:
        yield found


@pytest.fixture(scope="module")
def gpt(stack: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        yield client


def embed(gpt: openai.OpenAI, texts: list[str]) -> Array:
    found = gpt.embeddings.create(model="minilm", input=texts, extra_body={"truncate": True})
    return np.array([entry.embedding for entry in found.data])


def distances(left: Array, right: Array) -> Array:
    return 1 - (left * right).sum(axis=1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


@pytest.mark.parametrize("text", TEXTS, ids=[text[:20] for text in TEXTS])
def test_tokens_are_those_of_the_reference(text: str, stack: Stack, reference: Reference) -> None:
    asked = {"model": "minilm", "content": text, "add_special": True}
    found = httpx.post(f"{stack.url}/tokenize", json=asked, timeout=60).json()["tokens"]
    assert found == reference.tokens(text)


def test_vectors_are_those_of_the_reference(gpt: openai.OpenAI, reference: Reference) -> None:
    found = embed(gpt, TEXTS)
    assert found.shape == (len(TEXTS), 384)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-4)
    assert distances(found, np.array([reference.vector(text) for text in TEXTS])).max() < CLOSE


def test_a_vector_does_not_depend_on_the_other_inputs(gpt: openai.OpenAI) -> None:
    together = embed(gpt, TEXTS)
    alone = np.concatenate([embed(gpt, [text]) for text in TEXTS])
    assert distances(together, alone).max() < 1e-5


@pytest.mark.anyio
async def test_requests_at_the_same_time_get_their_own_vectors(stack: Stack, reference: Reference) -> None:
    texts = [f"text number {number} of many" for number in range(24)]
    async with openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key="none", timeout=120) as client:
        asked = (client.embeddings.create(model="minilm", input=text) for text in texts)
        answers = await asyncio.gather(*asked)
    found = np.array([answer.data[0].embedding for answer in answers])
    assert distances(found, np.array([reference.vector(text) for text in texts])).max() < CLOSE
    assert [answer.usage.prompt_tokens for answer in answers] == [len(reference.tokens(text)) for text in texts]


def test_similar_sentences_are_near(gpt: openai.OpenAI) -> None:
    cat, kitten, bond = embed(
        gpt, ["A cat sleeps on the sofa.", "A kitten naps on a couch.", "Bond prices fell today."]
    )
    assert cat @ kitten > 0.5
    assert cat @ bond < 0.2


def test_all_endpoints_give_one_vector(stack: Stack, gpt: openai.OpenAI) -> None:
    text = TEXTS[1]
    expected = embed(gpt, [text])[0]
    llama = ollama.Client(host=stack.url)
    raw = gpt.embeddings.with_raw_response.create(model="minilm", input=text, encoding_format="base64")
    found = {
        "ollama": llama.embed(model="minilm", input=text).embeddings[0],
        "ollama old": llama.embeddings(model="minilm", prompt=text).embedding,
        "llama-server": httpx.post(
            f"{stack.url}/embedding", json={"model": "minilm", "content": text}, timeout=60
        ).json()[0]["embedding"][0],
        "base64": np.frombuffer(base64.b64decode(raw.http_response.json()["data"][0]["embedding"]), "<f4"),
    }
    llama._client.close()
    for name, vector in found.items():
        assert distances(np.array([vector]), expected[None])[0] < 1e-6, name


def test_shorter_vectors_are_the_beginning_scaled_again(gpt: openai.OpenAI) -> None:
    whole = embed(gpt, [TEXTS[1]])[0]
    short = np.array(gpt.embeddings.create(model="minilm", input=TEXTS[1], dimensions=128).data[0].embedding)
    assert np.allclose(short, whole[:128] / np.linalg.norm(whole[:128]), atol=1e-5)


def test_declared_prompts_and_dimensions_shape_the_vectors(gpt: openai.OpenAI, reference: Reference) -> None:
    text = "how tides are read"
    default = gpt.embeddings.create(model="search", input=text).data[0].embedding
    query = gpt.embeddings.create(model="search", input=text, dimensions=64, extra_body={"prompt_name": "query"})
    for found, prompted in ((default, f"passage: {text}"), (query.data[0].embedding, f"query: {text}")):
        expected = reference.vector(prompted)[: len(found)]
        assert np.isclose(np.linalg.norm(found), 1, atol=1e-4)
        assert distances(np.array([found]), expected[None])[0] < CLOSE
    assert (len(default), len(query.data[0].embedding)) == (128, 64)
    with pytest.raises(openai.BadRequestError, match="no prompt 'document'"):
        gpt.embeddings.create(model="search", input=text, extra_body={"input_type": "document"})
    with pytest.raises(openai.BadRequestError, match="have 128 numbers"):
        gpt.embeddings.create(model="search", input=text, dimensions=256)


def test_a_long_input_is_refused_unless_it_may_be_cut(gpt: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"input\[1\]"):
        gpt.embeddings.create(model="minilm", input=["short", TEXTS[-1]])
