"""A byte-level vocabulary for llguidance, so that tests can ask whether a grammar accepts a text."""

from __future__ import annotations

import json
from collections.abc import Iterable
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
    made = LLMatcher(_TOKENIZER, "\n".join((constraint.grammar, *marks)), log_level=0)
    assert not made.is_error(), made.get_error() + constraint.grammar
    return made


def accepts(constraint: Constraint, text: str) -> bool:
    """Whether the grammar lets this whole text, and its end, be written."""
    made = matcher(constraint)
    octets = text.encode()
    return bool(made.try_consume_tokens(list(octets)) == len(octets) and made.is_accepting())


def accepts_all(constraint: Constraint, texts: Iterable[str]) -> list[str]:
    """Those of the texts that are not accepted."""
    return [text for text in texts if not accepts(constraint, text)]
