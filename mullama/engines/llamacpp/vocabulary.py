"""Text to tokens and back. The bytes of each token are cached."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from unicodedata import normalize

from mullama.chat.token_texts import TokenTexts, is_turn_mark
from mullama.engines.llamacpp.binding.model import NativeModel
from mullama.errors import Invalid
from mullama.struct import Struct

_UNKNOWN, _CONTROL, _USER_DEFINED, _STRIPS_LEFT, _STRIPS_RIGHT = 1 << 0, 1 << 3, 1 << 4, 1 << 7, 1 << 8
_DIVISIBLE = ("gpt2", "llama")
"""Tokenizers that treat the texts between special tokens one by one."""
LONG_BEGINNING = 2000
"""Characters from which the time of the tokenizer counts: some 0.3 ms for each thousand."""
_MOST_BEGINNINGS = 16
_SPACE = " \t\n\v\f\r"  # isspace of C


class _Special(Struct, frozen=True):
    """A token that is searched in the text before the text is split."""

    id: int
    text: str
    attributes: int


class Vocabulary:
    """The tokens of one model."""

    def __init__(self, model: NativeModel) -> None:
        self.model = model
        self.size = model.vocabulary
        self._pieces: dict[int, bytes] = {}
        self._texts: dict[int, str | None] = {}
        self._beginnings: dict[str, list[int]] = {}
        self.ends = tuple(t for t in range(self.size) if model.ends_generation(t))
        self.bos, self.eos, self.sep = (model.special(n) for n in ("bos", "eos", "sep"))
        self.fim_prefix, self.fim_suffix, self.fim_middle = (
            model.special(n) for n in ("fim_pre", "fim_suf", "fim_mid")
        )

    @property
    def fim(self) -> bool:
        """True if the vocabulary has the tokens to fill in the middle."""
        return min(self.fim_prefix, self.fim_suffix, self.fim_middle) >= 0

    def is_special(self, token: int) -> bool:
        """Return True for control tokens, and for user-defined tokens in angle brackets."""
        attributes = self.model.attributes(token)
        piece = self.piece(token)
        tagged = piece.startswith(b"<") and piece.endswith(b">")
        return bool(attributes & _CONTROL or (attributes & _USER_DEFINED and tagged))

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the tokens of a text; raise `Invalid` for lone surrogates."""
        if self.model.strips_accents and not text.isascii():
            # llama.cpp keeps the first character alone of what a character is made of: of a Hangul syllable, no vowel.
            text = normalize("NFD", text)
        known = next(filter(text.startswith, self._beginnings), "") if parse_special and not add_special else ""
        try:
            data = text[len(known) :].encode()
        except UnicodeEncodeError as error:
            raise Invalid(
                f"the text has a lone surrogate at character {len(known) + error.start}",
                hint="send well-formed Unicode",
            ) from error
        found = self.model.tokenize(data, add_special=add_special, parse_special=parse_special)
        return [*self._beginnings[known], *found] if known else found

    def keep_beginning(self, text: str) -> None:
        """Keep the tokens of a declared text up to its last control token, for the longer texts that begin with it.

        A tokenizer begins anew behind a control token, so these have the same tokens there. Nothing is kept where a
        text behind it could change that, or for another kind of tokenizer.
        """
        if self.model.metadata("tokenizer.ggml.model") not in _DIVISIBLE:
            return
        tokens = self.encode(text, add_special=False, parse_special=True)
        ids = {special.id: special for special in self._specials if special.attributes & _CONTROL}
        count = next((n for n in range(len(tokens), 0, -1) if tokens[n - 1] in ids), 0)
        if not count or not self._separates(ids[tokens[count - 1]]):
            return
        mark = ids[tokens[count - 1]].text
        beginning = text[: text.rindex(mark) + len(mark)]
        if self.encode(beginning, add_special=False, parse_special=True) != tokens[:count]:
            return
        self._beginnings.pop(beginning, None)
        self._beginnings[beginning] = tokens[:count]
        if len(self._beginnings) > _MOST_BEGINNINGS:
            del self._beginnings[next(iter(self._beginnings))]

    def _separates(self, mark: _Special) -> bool:
        """Return True if no text behind this token is part of a longer special token, or is dropped with it."""
        if mark.attributes & _STRIPS_RIGHT:
            return False
        return not any(
            mark.text.endswith(other.text[:count]) or other.text[:count].endswith(mark.text)
            for other in self._specials
            for count in range(1, len(other.text))
        )

    def encode_joined(self, text: str, joint: str) -> list[int]:
        """Return the tokens of a prompt in which control tokens are recognised, except where the joint breaks them.

        The text between two special tokens gets the tokens of plain text, without the joint.
        """
        tokens: list[int] = []
        for part in self._partition(text):
            if isinstance(part, _Special):
                tokens.append(part.id)
            else:
                tokens += self._plain(part.replace(joint, ""))
        return tokens

    def _plain(self, text: str) -> list[int]:
        """Return the tokens of plain text, none of them a mark of turns, which llama.cpp recognises by its type."""
        tokens = self.encode(text, add_special=False, parse_special=False)
        if self._turn_marks.isdisjoint(tokens):
            return tokens
        pieces = TokenTexts(self.model.text(token) for token in self._turn_marks).split(text)
        return [t for piece in pieces for t in self.encode(piece, add_special=False, parse_special=False)]

    def _partition(self, text: str) -> list[str | _Special]:
        """Split a text at its special tokens, as llama.cpp's tokenizer_st_partition does: longer tokens first."""
        parts: list[str | _Special] = [text]
        for special in self._specials:
            if special.text in text:
                parts = [piece for part in parts for piece in _split_at(special, part)]
        return parts

    @cached_property
    def _specials(self) -> list[_Special]:
        """The tokens that llama.cpp recognises in a text with control tokens, longest first."""
        found = []
        for token in range(self.size):
            attributes = self.model.attributes(token)
            if attributes & (_UNKNOWN | _CONTROL | _USER_DEFINED) and (text := self.model.text(token)):
                found.append(_Special(token, text, attributes))
        return sorted(found, key=lambda special: -len(special.text.encode()))

    @cached_property
    def _turn_marks(self) -> frozenset[int]:
        return frozenset(s.id for s in self._specials if s.attributes & _USER_DEFINED and is_turn_mark(s.text))

    @cached_property
    def texts(self) -> TokenTexts:
        """The texts that no content may contribute as a token."""
        return TokenTexts(s.text for s in self._specials if s.attributes & (_UNKNOWN | _CONTROL))

    def piece(self, token: int) -> bytes:
        """Return the bytes of one token, for control tokens their text."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self.model.piece(token)
        return piece

    def text(self, token: int) -> str | None:
        """Return the text of one token, None for bytes that are not complete characters."""
        try:
            return self._texts[token]
        except KeyError:
            try:
                text = self.piece(token).decode()
            except UnicodeDecodeError:
                text = None
            self._texts[token] = text
            return text

    @cached_property
    def named(self) -> TokenNames:
        """The text and the bytes of each token."""
        return TokenNames(self)

    def decode(self, tokens: Sequence[int]) -> bytes:
        return b"".join(self.piece(token) for token in tokens)

    def check(self, tokens: Sequence[int]) -> None:
        """Raise `Invalid` for an id outside the vocabulary, which native code must not get."""
        for index, token in enumerate(tokens):
            if not 0 <= token < self.size:
                raise Invalid(
                    f"token {index} of the prompt is {token}",
                    hint=f"this model's tokens are 0 to {self.size - 1}",
                    field="prompt",
                )


class TokenNames(dict[int, tuple[str, bytes]]):
    """The text of each token, with U+FFFD for bytes that are no character, and its bytes, looked up once."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self._vocabulary = vocabulary

    def __missing__(self, token: int) -> tuple[str, bytes]:
        piece = self._vocabulary.piece(token)
        found = self[token] = piece.decode("utf-8", "replace"), piece
        return found


def _split_at(special: _Special, part: str | _Special) -> Iterator[str | _Special]:
    """Yield a part with each occurrence of one special token apart; white space that it strips is dropped."""
    if isinstance(part, _Special):
        yield part
        return
    rest, text = part, special.text
    while True:
        before, found, rest = rest.partition(text)
        if found and special.attributes & _STRIPS_LEFT:
            before = before.rstrip(_SPACE)
        if before:
            yield before
        if not found:
            return
        yield special
        if special.attributes & _STRIPS_RIGHT:
            rest = rest.lstrip(_SPACE)
