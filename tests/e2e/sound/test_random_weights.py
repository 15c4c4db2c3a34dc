"""Transcription end to end by llama.cpp: random weights and a projector of Whisper's shape."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from mullama.audio.pcm import to_pcm
from mullama.chat.media.wav import wav_file
from tests.audio.sounds import noise, spoken
from tests.e2e.stack import Stack
from tests.engines.llamacpp import builders
from tests.engines.llamacpp.media import projectors

pytestmark = pytest.mark.timeout(120)


def test_a_sound_of_two_sentences_by_random_weights(empty_stack: Stack) -> None:
    stack, quiet = empty_stack, noise(1, -80)
    builders.llama(stack.home / "m.gguf")
    projectors.qwen2a(stack.home / "mmproj-m.gguf")
    model: Any = {
        "from": "./m.gguf", "task": "transcription", "context": {"size": 2048}, "limits": {"max_tokens": 8},
        "transcription": {"voice": {"detector": "energy"}},
    }  # fmt: skip
    stack.write({"ears": model}, server={"listen": ["127.0.0.1:0"]})
    stack.apply()
    sound = wav_file(to_pcm(np.concatenate([quiet, spoken(7), quiet, spoken(2), quiet])))
    fields = {"model": "ears", "response_format": "verbose_json"}
    answer = httpx.post(
        f"{stack.url}/v1/audio/transcriptions", files={"file": sound}, data=fields, timeout=60
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["duration"] == 12
    for segment in found["segments"]:
        assert 0 < len(segment["tokens"]) <= 8
        assert segment["avg_logprob"] < 0
    refused = httpx.post(f"{stack.url}/v1/chat/completions", json={
        "model": "ears", "messages": [{"role": "user", "content": "Hi"}],
    })  # fmt: skip
    assert refused.status_code == 400
    assert "without a sound" in refused.json()["error"]["message"]
