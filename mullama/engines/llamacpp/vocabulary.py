"""Text to tokens and back. The bytes of each token are cached."""

from __future__ import annotations

from collections.abc import Sequence

from mullama.engines.llamacpp.binding.model import NativeModel
from mullama.errors import Invalid

_CONTROL, _USER_DEFINED = 1 << 3, 1 << 4


class Vocabulary:
    """The tokens of one model."""

    def __init__(self, model: NativeModel) -> None:
        self.model = model
        self.size = model.vocabulary
        self._pieces: dict[int, bytes] = {}
        self.ends = tuple(t for t in range(self.size) if model.ends_generation(t))
        self._end_set = frozenset(self.ends)
        self.bos, self.eos, self.sep = (model.special(n) for n in ("bos", "eos", "sep"))
        self.fim_prefix, self.fim_suffix, self.fim_middle = (
            model.special(n) for n in ("fim_pre", "fim_suf", "fim_mid")
        )

    @property
    def fim(self) -> bool:
        """True if the vocabulary has the tokens to fill in the middle."""
        return min(self.fim_prefix, self.fim_suffix, self.fim_middle) >= 0

    def is_end(self, token: int) -> bool:
        return token in self._end_set

    def is_special(self, token: int) -> bool:
        """Return True for control tokens, and for user-defined tokens in angle brackets."""
        attributes = self.model.attributes(token)
        piece = self.piece(token)
        tagged = piece.startswith(b"<") and piece.endswith(b">")
        return bool(attributes & _CONTROL or (attributes & _USER_DEFINED and tagged))

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Return the tokens of a text; raise `Invalid` for lone surrogates."""
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise Invalid(
                f"the text has a lone surrogate at character {error.start}",
                hint="send well-formed Unicode",
            ) from error
        return self.model.tokenize(data, add_special=add_special, parse_special=parse_special)

    def piece(self, token: int) -> bytes:
        """Return the bytes of one token, for control tokens their text."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self.model.piece(token)
        return piece

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
