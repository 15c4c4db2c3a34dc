"""Checks the vocabulary of a header, and refuses one that would end the tokenizer in native code."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

from mullama.chat.token_texts import is_turn_mark
from mullama.errors import BadWeights
from mullama.weights.facts import SpecialToken
from mullama.weights.gguf import Array
from mullama.weights.keys import Keys

TOKENS: Final = "tokenizer.ggml.tokens"
MERGES: Final = "tokenizer.ggml.merges"
SCORES: Final = "tokenizer.ggml.scores"
TYPES: Final = "tokenizer.ggml.token_type"

MAX_TOKENS: Final = 2**21
_BYTE: Final = re.compile(rb"<0x[0-9A-Fa-f]{2}>")
_BYTE_TYPE: Final = 6
_CONTROL_TYPES: Final = (2, 3)
"""The types of the unknown token and of control tokens."""
_USER_DEFINED_TYPE: Final = 4
_NONE: Final = 2**32 - 1
_WITHOUT: Final = ("none", "no_vocab")
_BY_MERGES: Final = ("gpt2", "hybriddna", "whitespace", "gemma4")
_BY_SCORES: Final = ("llama", "t5")
_KNOWN: Final = (*_BY_MERGES, *_BY_SCORES, "bert", "rwkv", "plamo2")
_WITHOUT_BYTES: Final = ("bert", "rwkv")
"""Tokenizers for which llama.cpp aborts at a token of byte type."""

_DEFAULT_IDS: Final = {
    "llama": {"bos": 1, "eos": 2, "unk": 0}, "plamo2": {"bos": 1, "eos": 2, "unk": 0},
    "bert": {"bos": 101, "sep": 102, "unk": 100}, "t5": {"eos": 1, "unk": 2},
    "gpt2": {"bos": 11, "eos": 11}, "hybriddna": {"bos": 11, "eos": 11}, "whitespace": {"bos": 11, "eos": 11},
}  # fmt: skip
"""The ids of special tokens that llama.cpp uses for a file without the key."""

_REQUIRED_ROLES: Final = {"llama": ("bos", "unk"), "bert": ("bos", "sep", "unk"), "gemma4": ("bos",), "t5": ("unk",)}
"""Roles that llama.cpp requires for these tokenizers, by assertions."""

_NEWLINES: Final = (b"\\n", b"\n")

_ROLES: Final = {
    "bos": "bos_token_id", "eos": "eos_token_id", "eot": "eot_token_id", "eom": "eom_token_id",
    "unk": "unknown_token_id", "sep": "seperator_token_id", "pad": "padding_token_id", "cls": "cls_token_id",
    "mask": "mask_token_id", "fim_pre": "fim_pre_token_id", "fim_suf": "fim_suf_token_id",
    "fim_mid": "fim_mid_token_id", "fim_pad": "fim_pad_token_id", "fim_rep": "fim_rep_token_id",
    "fim_sep": "fim_sep_token_id",
}  # fmt: skip
_OLD_ROLES: Final = {"fim_pre": "prefix_token_id", "fim_suf": "suffix_token_id", "fim_mid": "middle_token_id"}
_BY_TEXT: Final = {
    "eot": (b"<|eot_id|>", b"<|im_end|>", b"<|end|>", b"<end_of_turn>", b"<|endoftext|>", b"<EOT>",
            "<｜end▁of▁sentence｜>".encode()),
    "fim_pre": (b"<|fim_prefix|>", b"<fim-prefix>", b"<fim_prefix>", "<｜fim▁begin｜>".encode(), b"<PRE>",
                "▁<PRE>".encode(), b"<|code_prefix|>", b"<|prefix|>"),
    "fim_suf": (b"<|fim_suffix|>", b"<fim-suffix>", b"<fim_suffix>", "<｜fim▁hole｜>".encode(), b"<SUF>",
                "▁<SUF>".encode(), b"<|code_suffix|>", b"<|suffix|>"),
    "fim_mid": (b"<|fim_middle|>", b"<fim-middle>", b"<fim_middle>", "<｜fim▁end｜>".encode(), b"<MID>",
                "▁<MID>".encode(), b"<|code_middle|>", b"<|middle|>"),
}  # fmt: skip
"""Texts of tokens by which llama.cpp finds a role without a key."""
_ENDS: Final = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
    "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>",
    "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~[",
    "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>", "<|repo_name|>", "<fim-repo>",
    "<REPO>", "<reponame>", "<|file_sep|>",
)  # fmt: skip
"""Texts of tokens that llama.cpp makes control tokens whatever type the file gives them (llama_vocab::impl::load)."""


def check_vocabulary(keys: Keys) -> tuple[int, tuple[SpecialToken, ...], tuple[str, ...]]:
    """Return the number of tokens, the special tokens, and the texts of tokens that are no text.

    Raise `BadWeights` for a vocabulary that cannot be used.
    """
    model = keys.text("tokenizer.ggml.model")
    if model not in (*_KNOWN, *_WITHOUT):
        raise BadWeights(f"key tokenizer.ggml.model is {model!r}", hint=f"one of {', '.join(_KNOWN)}")
    if model in _WITHOUT:
        raise BadWeights("the file has no vocabulary", hint="text can neither be read nor written with it")
    if keys.text("tokenizer.ggml.pre") == "whitespace":
        raise BadWeights(
            "key tokenizer.ggml.pre is 'whitespace'", hint="llama.cpp ends with an assertion at the first double space"
        )
    tokens = _tokens(keys)
    _scores(keys, model, len(tokens))
    types = _types(keys, len(tokens))
    ids = _unique(tokens)
    _bytes(model, tokens, types, ids)
    _fits(keys, model, ids)
    special = _special(keys, tokens, ids)
    _check_needed(keys, model, len(tokens), {token.role for token in special})
    return len(tokens), special, _control(tokens, types, ids, special)


def _control(
    tokens: list[bytes], types: tuple[int, ...], ids: Mapping[bytes, int], special: tuple[SpecialToken, ...]
) -> tuple[str, ...]:
    """Return the texts of all tokens that llama.cpp recognises only where control tokens are meant.

    llama.cpp makes control tokens of those with a role and of known ends, whatever type the file gives them.
    """
    marked = {tokens[number] for number, kind in enumerate(types) if kind in _CONTROL_TYPES}
    turns = {tokens[number].decode() for number, kind in enumerate(types) if kind == _USER_DEFINED_TYPE}
    known = {text for text in _ENDS if text.encode() in ids}
    texts = {text.decode() for text in marked} | set(filter(is_turn_mark, turns)) | known
    return tuple(sorted(texts | {token.text for token in special}))


def _tokens(keys: Keys) -> list[bytes]:
    value = keys.get(TOKENS)
    if not isinstance(value, Array) or value.kind != "string":
        raise BadWeights(f"key {TOKENS} is missing" if value is None else str(keys.wrong(TOKENS, "texts")))
    keys.within(TOKENS, value.count, 1, MAX_TOKENS)
    tokens = value.strings()
    try:
        # No UTF-8 character contains a newline, so this one call checks each token by itself.
        b"\n".join(tokens).decode()
    except UnicodeDecodeError as error:
        raise BadWeights(_not_text(tokens), hint="the vocabulary is damaged: download the file again") from error
    return tokens


def _not_text(tokens: list[bytes]) -> str:
    for number, token in enumerate(tokens):
        try:
            token.decode()
        except UnicodeDecodeError:
            return f"token {number} of {TOKENS} is not UTF-8: {token[:40]!r}"
    return f"{TOKENS} is not UTF-8"


def _scores(keys: Keys, model: str, count: int) -> None:
    value = keys.get(SCORES)
    if value is None:
        if model in _BY_SCORES:
            raise BadWeights(f"a {model!r} tokenizer needs {SCORES}, which is missing")
        return
    if not isinstance(value, Array) or value.kind not in ("float32", "int32"):
        raise keys.wrong(SCORES, "an array of float32 or int32")
    if value.count != count:
        raise BadWeights(f"{SCORES} has {value.count} elements for {count} tokens")
    if any(map(math.isnan, value.numbers())):
        raise BadWeights(f"{SCORES} holds a value that is not a number")


def _types(keys: Keys, count: int) -> tuple[int, ...]:
    value = keys.get(TYPES)
    if value is None:
        return ()
    if not isinstance(value, Array) or value.kind != "int32":
        raise keys.wrong(TYPES, "an array of int32")
    if value.count != count:
        raise BadWeights(f"{TYPES} has {value.count} elements for {count} tokens")
    return keys.integers(TYPES)


def _unique(tokens: list[bytes]) -> dict[bytes, int]:
    """Return the id of each token. Empty tokens may repeat, because llama.cpp gives each a text of its own."""
    ids = dict(zip(tokens, range(len(tokens)), strict=True))
    if len(ids) + max(0, tokens.count(b"") - 1) == len(tokens):
        return ids
    first: dict[bytes, int] = {}
    for number, token in enumerate(tokens):
        if token and first.setdefault(token, number) != number:
            text = token.decode()[:40]
            raise BadWeights(
                f"tokens {first[token]} and {number} of {TOKENS} are both {text!r}",
                hint="the vocabulary is damaged: download the file again",
            )
    return ids


def _bytes(model: str, tokens: list[bytes], types: tuple[int, ...], ids: dict[bytes, int]) -> None:
    if model in _WITHOUT_BYTES and _BYTE_TYPE in types:
        raise BadWeights(
            f"token {types.index(_BYTE_TYPE)} is of byte type, which a {model!r} tokenizer cannot have",
            hint="tokenizer.ggml.model does not fit the vocabulary",
        )
    for number, kind in enumerate(types if _BYTE_TYPE in types else ()):
        if kind == _BYTE_TYPE and not _BYTE.fullmatch(tokens[number]):
            raise BadWeights(
                f"token {number} is of byte type but reads {tokens[number].decode()[:40]!r}, not like '<0x0A>'"
            )
    if model not in ("llama", "plamo2"):
        return
    for value in range(256):
        single = bytes([value])
        if b"<0x%02X>" % value not in ids and (model == "plamo2" or single not in ids):
            raise BadWeights(
                f"a {model!r} tokenizer needs the byte token <0x{value:02X}>, which the vocabulary lacks",
                hint="tokenizer.ggml.model does not fit the vocabulary",
            )


def _fits(keys: Keys, model: str, ids: dict[bytes, int]) -> None:
    if model in _BY_MERGES and not (keys.text("tokenizer.ggml.pre") == "kimi-k2" and not keys.has(MERGES)):
        merges = keys.get(MERGES)
        if not isinstance(merges, Array) or merges.kind != "string":
            raise BadWeights(f"a {model!r} tokenizer needs {MERGES}, an array of texts")
    if model == "rwkv" and not any(newline in ids for newline in _NEWLINES):
        raise BadWeights("an 'rwkv' tokenizer needs a token for the newline, which the vocabulary lacks")


def _check_needed(keys: Keys, model: str, count: int, named: set[str]) -> None:
    """Check the tokens that are added to every text, which llama.cpp asserts at the first text."""
    needed = set(_REQUIRED_ROLES.get(model, ()))
    if keys.flag("tokenizer.ggml.add_bos_token"):
        needed.add("bos")
    if keys.flag("tokenizer.ggml.add_eos_token") or (
        model == "t5" and keys.flag("tokenizer.ggml.add_eos_token") is None
    ):
        needed.add("eos")
    usual = {role for role, number in _DEFAULT_IDS.get(model, {}).items() if number < count}
    for role in sorted(needed - named - usual):
        raise BadWeights(f"a {model!r} tokenizer needs tokenizer.ggml.{_ROLES[role]}, which the file does not name")


def _special(keys: Keys, tokens: list[bytes], ids: dict[bytes, int]) -> tuple[SpecialToken, ...]:
    found: dict[str, int] = {}
    for role, key in (*_OLD_ROLES.items(), *_ROLES.items()):
        number = keys.integer(f"tokenizer.ggml.{key}", _NONE, high=_NONE)
        if number == _NONE:
            continue
        if number >= len(tokens):
            raise BadWeights(f"key tokenizer.ggml.{key} is {number}, the vocabulary has {len(tokens)} tokens")
        found[role] = number
    for role, texts in _BY_TEXT.items():
        known = next((ids[text] for text in texts if text in ids), None)
        if role not in found and known is not None:
            found[role] = known
    return tuple(
        SpecialToken(role=role, id=number, text=tokens[number].decode()) for role, number in sorted(found.items())
    )
