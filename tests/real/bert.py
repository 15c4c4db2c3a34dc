"""The reference of MiniLM's vectors: BERT's tokenizer and encoder in Python and NumPy, over the published weights.

Written from the published descriptions (Devlin et al. 2018; the WordPiece and BasicTokenizer of its code), and
independent of llama.cpp: 32-bit floats throughout, one input at a time.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benches.minilm import read_safetensors

Array = np.ndarray[Any, Any]
CLS, SEP, UNKNOWN = "[CLS]", "[SEP]", "[UNK]"
LONGEST_WORD = 100  # characters; a longer word is unknown as a whole


class Reference:
    """Tokens and vectors of one model."""

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        self._vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
        self._heads: int = config["num_attention_heads"]
        self._layers: int = config["num_hidden_layers"]
        self._epsilon: float = config["layer_norm_eps"]
        self._weights = read_safetensors(folder / "model.safetensors")

    def tokens(self, text: str) -> list[int]:
        """The ids of a text between the two marks."""
        pieces = [piece for word in _words(text) for piece in self._pieces(word)]
        return [self._vocabulary[piece] for piece in (CLS, *pieces, SEP)]

    def vector(self, text: str, longest: int = 512) -> Array:
        """The mean of the last layer over all tokens, scaled to length 1. A longer input loses its end."""
        tokens = self.tokens(text)
        if len(tokens) > longest:
            tokens = [*tokens[: longest - 1], tokens[-1]]
        states = self._encode(np.array(tokens))
        mean = states.mean(axis=0)
        return mean / np.linalg.norm(mean)

    def _pieces(self, word: str) -> list[str]:
        """The longest pieces from the left; later ones are marked. A word with an unknown rest is unknown."""
        if len(word) > LONGEST_WORD:
            return [UNKNOWN]
        found, start = [], 0
        while start < len(word):
            mark = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if mark + word[start:end] in self._vocabulary), None)
            if end is None:
                return [UNKNOWN]
            found.append(mark + word[start:end])
            start = end
        return found

    def _encode(self, tokens: Array) -> Array:
        weights = self._weights
        states = weights["embeddings.word_embeddings.weight"][tokens]
        states = states + weights["embeddings.position_embeddings.weight"][: len(tokens)]
        states = self._normed(states + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for layer in range(self._layers):
            block = f"encoder.layer.{layer}."
            mixed = self._dense(self._attention(states, block), f"{block}attention.output.dense")
            states = self._normed(states + mixed, f"{block}attention.output.LayerNorm")
            hidden = _gelu(self._dense(states, f"{block}intermediate.dense"))
            states = self._normed(states + self._dense(hidden, f"{block}output.dense"), f"{block}output.LayerNorm")
        return states

    def _attention(self, states: Array, block: str) -> Array:
        names = (f"{block}attention.self.{part}" for part in ("query", "key", "value"))
        count, width = states.shape
        query, key, value = (
            self._dense(states, name).reshape(count, self._heads, -1).transpose(1, 0, 2) for name in names
        )
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(width // self._heads)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = weights / weights.sum(axis=-1, keepdims=True) @ value
        return mixed.transpose(1, 0, 2).reshape(count, width)

    def _dense(self, states: Array, name: str) -> Array:
        return states @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]

    def _normed(self, states: Array, name: str) -> Array:
        centred = states - states.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + self._epsilon)
        return centred / scale * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]


def _gelu(values: Array) -> Array:
    """The exact form: x/2 (1 + erf(x / sqrt 2))."""
    erf = np.vectorize(math.erf, otypes=[np.float32])
    return values / 2 * (1 + erf(values / math.sqrt(2)))


def _words(text: str) -> Iterator[str]:
    """Lower case without accents, split at white space, around punctuation and around each Chinese character."""
    kept = "".join(" " if _is_space(c) else c for c in text if not _is_control(c))
    plain = unicodedata.normalize("NFD", kept.lower())
    plain = "".join(c for c in plain if unicodedata.category(c) != "Mn")
    for run in plain.split():
        word = ""
        for character in run:
            if _is_punctuation(character) or _is_chinese(character):
                yield from filter(None, (word, character))
                word = ""
            else:
                word += character
        yield from filter(None, (word,))


def _is_space(character: str) -> bool:
    return character in " \t\n\r" or unicodedata.category(character) == "Zs"


def _is_control(character: str) -> bool:
    if character in "\t\n\r":
        return False
    return character in "\0\ufffd" or unicodedata.category(character).startswith("C")


def _is_punctuation(character: str) -> bool:
    """All of ASCII that is neither letter, digit nor space counts, such as `$` and `^`."""
    ascii_sign = character.isascii() and character.isprintable() and not character.isalnum() and character != " "
    return ascii_sign or unicodedata.category(character).startswith("P")


def _is_chinese(character: str) -> bool:
    """The blocks of CJK ideographs; kana and hangul are written with the alphabet's rules."""
    ranges = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2CEAF), (0x2F800, 0x2FA1F))
    return any(low <= ord(character) <= high for low, high in ranges)
