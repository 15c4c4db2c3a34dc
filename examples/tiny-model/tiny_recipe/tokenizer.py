"""The tokenizer: frequent pieces are one token each, everything else is spelled letter by letter.

So a made-up word is the same row of letters wherever it stands (after a space, a quote or nothing), and spelling and
exact copying need no knowledge of what a token is made of. llama.cpp reads this as "llama-bpe", whose rule is that a
piece found in the vocabulary is one token, whatever the merges say.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import islice

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from tiny_recipe.phrases.words import CITIES, NAMES, WORDS
from tiny_recipe.rendering import rendered
from tiny_recipe.samples.mix import samples
from tiny_recipe.samples.writer import Writer

CONTROL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>",
)  # fmt: skip
VISIBLE = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
SPECIAL = CONTROL + VISIBLE
VOCABULARY = 3072
PRE = "llama-bpe"
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
SPACE = "\u0120"  # how a byte-level vocabulary writes a space
MERGES = [(SPACE, SPACE)]  # the format wants at least one
NO_WORD = "zq"


class ClosedWriter(Writer):
    """Writes one mark for every made-up word, so that none becomes a token."""

    def pseudo(self, syllables: int = 2) -> str:
        return NO_WORD


def make_tokenizer(seed: int, count: int = 20_000) -> Tokenizer:
    """A tokenizer for the pieces that are frequent in `count` samples."""
    texts = (rendered(sample) for sample in islice(samples(seed, ClosedWriter), count))
    return tokenizer_of(vocabulary(Counter(pieces(splitter(), texts))))


def splitter() -> pre_tokenizers.PreTokenizer:
    """What cuts text into pieces, as llama.cpp's "llama-bpe" does."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def tokenizer_of(tokens: Sequence[str]) -> Tokenizer:
    """The tokenizer with this vocabulary."""
    tokenizer = Tokenizer(
        models.BPE({token: i for i, token in enumerate(tokens)}, MERGES, ignore_merges=True)
    )
    tokenizer.pre_tokenizer = splitter()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in VISIBLE])
    return tokenizer


def pieces(before: pre_tokenizers.PreTokenizer, texts: Iterable[str]) -> Iterator[str]:
    """Words with the mark or space before them, runs of marks, numbers and spaces."""
    marks = re.compile("|".join(map(re.escape, SPECIAL)))
    for text in texts:
        for part in marks.split(text):
            yield from (piece for piece, _ in before.pre_tokenize_str(part))


def held_out(piece: str) -> bool:
    """Is the piece a word that only probes use? The model must meet it as letters, like any other unknown word."""
    word = re.sub(r"^\W|[^A-Za-z]", "", piece.removeprefix(SPACE)).lower()
    return word in words_held_out()


@cache
def words_held_out() -> frozenset[str]:
    w = Writer(0, held_out=True)
    entries = [entry for entry in (*NAMES, *CITIES, *WORDS) if w.mine(entry)]
    return frozenset(part.lower() for entry in entries for part in entry.split())


def vocabulary(counts: Counter[str]) -> list[str]:
    """Special tokens, bytes, letters after a hyphen (for spelling), and the most frequent pieces without digits."""
    tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *map("".join, MERGES)]
    tokens += [f"-{letter}" for letter in string.ascii_letters]
    known = set(tokens)
    for piece, _ in counts.most_common():
        if len(tokens) == VOCABULARY:
            break
        spelled = re.search(r"\d", piece) or NO_WORD in piece.lower() or held_out(piece)
        if len(piece) > 1 and piece not in known and not spelled:
            tokens.append(piece)
    return tokens
