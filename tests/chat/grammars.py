"""A byte-level vocabulary for llguidance, so that tests can ask whether a grammar accepts a text."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from llguidance import LLMatcher, LLTokenizer
from llguidance._tokenizer import TokenizerWrapper

from mullama.chat.types import Constraint

END = 256


class _Octets:
    eos_token_id = END
    bos_token_id = END
    special_token_ids = (END,)
    tokens = (*(bytes([octet]) for octet in range(256)), b"\xff<|end-of-text|>")

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


_TOKENIZER = LLTokenizer(TokenizerWrapper(_Octets()))


def matcher(constraint: Constraint) -> Any:
    """The constraint's grammar as llguidance compiles it, marks taken as plain text."""
    marks = (f"{rule}: {json.dumps(text)}" for rule, text in constraint.markers)
    return _compiled("\n".join((constraint.grammar, *marks))).deep_copy()


@lru_cache(maxsize=64)
def _compiled(grammar: str) -> Any:
    made = LLMatcher(_TOKENIZER, grammar, log_level=0)
    assert not made.is_error(), made.get_error() + grammar
    return made


def accepts(constraint: Constraint, text: str) -> bool:
    """Whether the grammar lets this whole text, and its end, be written."""
    made = matcher(constraint)
    octets = text.encode()
    return bool(made.try_consume_tokens(list(octets)) == len(octets) and made.is_accepting())


def wander(constraint: Constraint, random: Any, hint: str = "", limit: int = 3000) -> str:
    """A text that the grammar lets be written, chosen at random but in a hurry to end; "" when it takes too long.

    hint: a text to try now and then as a whole, such as the one that ends a free value.
    """
    whole = list(hint.encode())
    made = matcher(constraint)
    text = bytearray()
    while len(text) < limit:
        if made.is_accepting() and (made.is_stopped() or random.random() < 0.8):
            return text.decode("utf-8", "replace")
        if whole and random.random() < 0.3 and made.validate_tokens(whole) == len(whole):
            assert made.consume_tokens(whole)
            text.extend(whole)
            continue
        plain, closing = _choices(made.compute_bitmask())
        if not plain:
            return text.decode("utf-8", "replace")
        token = random.choice(closing) if closing and random.random() < 0.5 else random.choice(plain)
        assert made.consume_token(token)
        text.append(token)
    return ""


@lru_cache(maxsize=1000)
def _choices(mask: bytes) -> tuple[list[int], list[int]]:
    """The octets that a mask allows, the printable ones alone where there are some, and those that close a value."""
    allowed = [token for token in range(END) if mask[token >> 3] >> (token & 7) & 1]
    plain = [token for token in allowed if token == 10 or (32 <= token < 127 and token != 92)] or allowed
    return plain, [token for token in plain if chr(token) in '"}])<\n']
