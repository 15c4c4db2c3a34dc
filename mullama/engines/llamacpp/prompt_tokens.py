"""Prompts and inputs of jobs as tokens: text or ids, filling in the middle, pairs to rank. They are validated here."""

from __future__ import annotations

import re

from mullama.chat.token_texts import choose_joint
from mullama.chat.types import PromptInput
from mullama.engines.base import Embed, Generate, Prefix
from mullama.engines.llamacpp.cache.prefix_tree import common_length
from mullama.engines.llamacpp.vocabulary import Vocabulary
from mullama.errors import ContextOverflow, Invalid, Unsupported

_FOLLOWING = ("a", "the", "I", "s", " a", " The", "1", ".", ":", "\n", "\n\n", "  ", "(", "é", "中")
_PLACES = re.compile(r"\{query\}|\{document\}")


def prompt_tokens(job: Generate, vocabulary: Vocabulary, context_size: int) -> list[int]:
    """Return the prompt of a job, never empty. Raise `ContextOverflow` unless at least one token of an answer fits."""
    if isinstance(job.prompt, str) and job.suffix is not None:
        tokens = vocabulary.encode(job.prompt, add_special=False, parse_special=False)
    else:
        tokens = main_tokens(job.prompt, vocabulary, job.joint)
    if job.suffix is not None:
        tokens = _filled_in(tokens, job.suffix, vocabulary)
    if not tokens:
        tokens = [vocabulary.bos] if vocabulary.bos >= 0 else []
    if not tokens:
        raise Invalid("the prompt is empty", hint="send at least one character", field="prompt")
    if len(tokens) >= context_size:
        raise ContextOverflow(len(tokens), context_size)
    return tokens


def text_tokens(text: str, vocabulary: Vocabulary, joint: str = "", *, begins: bool = True) -> list[int]:
    """Return a prompt's tokens: control tokens are recognised, and one BOS comes first if the model wants it.

    joint: as `Generate.joint`. begins: nothing precedes the text; a later text gets no BOS.
    """
    if joint and joint in text:
        tokens = vocabulary.encode_joined(text, joint)
    else:
        tokens = vocabulary.encode(text, add_special=False, parse_special=True)
    wants_bos = begins and vocabulary.model.add_bos and vocabulary.bos >= 0
    return [vocabulary.bos, *tokens] if wants_bos and tokens[:1] != [vocabulary.bos] else tokens


def prefix_tokens(prefix: Prefix, vocabulary: Vocabulary, *, fixed: bool) -> list[int]:
    """Return a declared prefix as tokens.

    A prefix that can only be shared as a unit (`fixed`) is cut where the text of a request could merge with its last
    tokens: they are those that no text behind it changed. No text merges with a control token.
    """
    tokens = text_tokens(prefix.text, vocabulary, prefix.joint)
    for text in _FOLLOWING if fixed and tokens and not vocabulary.is_special(tokens[-1]) else ():
        followed = text_tokens(prefix.text + text, vocabulary, prefix.joint)
        del tokens[common_length(tokens, followed) :]
    return tokens


def embed_inputs(job: Embed, vocabulary: Vocabulary, longest: int) -> list[list[int]]:
    """Return every input or pair of a job as tokens, truncated if the job allows it."""
    if job.pairs:
        inputs = [_pair(query, document, vocabulary) for query, document in job.pairs]
    else:
        inputs = [_embed_tokens(item, vocabulary) for item in job.inputs]
    return [_cut(tokens, longest, index, truncate=job.truncate) for index, tokens in enumerate(inputs)]


def main_tokens(prompt: PromptInput, vocabulary: Vocabulary, joint: str) -> list[int]:
    """Return the tokens of texts and ids; a BOS that the model wants comes before a text at the beginning."""
    (tokens,) = parts_between(prompt, vocabulary, joint, marker="")
    return tokens


def parts_between(prompt: PromptInput, vocabulary: Vocabulary, joint: str, marker: str) -> list[list[int]]:
    """Return the tokens before, between and after the markers in the texts of a prompt, see `Prompt.marker`.

    A BOS that the model wants comes before a text at the beginning alone, also one of a marker and nothing before it.
    """
    parts = (prompt,) if isinstance(prompt, str) else prompt
    vocabulary.check([part for part in parts if not isinstance(part, str)])
    found: list[list[int]] = [[]]
    begins = True
    for part in parts:
        if not isinstance(part, str):
            found[-1].append(part)
            begins = False
            continue
        for index, text in enumerate(part.split(marker) if marker else (part,)):
            if index:
                found.append([])
            found[-1] += text_tokens(text, vocabulary, joint, begins=begins)
            begins = False
    return found


def _plain_tokens(parts: tuple[int | str, ...], vocabulary: Vocabulary) -> list[int]:
    """Return the tokens of plain texts and ids, without any that mark the beginning or the end."""
    vocabulary.check([part for part in parts if not isinstance(part, str)])
    tokens: list[int] = []
    for part in parts:
        if isinstance(part, str):
            tokens += vocabulary.encode(part, add_special=False, parse_special=False)
        else:
            tokens.append(part)
    return tokens


def _filled_in(prefix: list[int], suffix: str, vocabulary: Vocabulary) -> list[int]:
    if not vocabulary.fim:
        raise Unsupported(
            "this model cannot fill in the middle: its vocabulary has no tokens for it",
            hint="send no suffix, or use a model made for code completion",
        )
    after = vocabulary.encode(suffix, add_special=False, parse_special=False)
    begin = [vocabulary.bos] if vocabulary.model.add_bos and vocabulary.bos >= 0 else []
    body = prefix[1:] if begin and prefix[:1] == begin else prefix
    return [*begin, vocabulary.fim_prefix, *body, vocabulary.fim_suffix, *after, vocabulary.fim_middle]


def _embed_tokens(item: PromptInput, vocabulary: Vocabulary) -> list[int]:
    first = item if isinstance(item, str) else item[0] if item else None
    if isinstance(first, str):
        rest = () if isinstance(item, str) else item[1:]
        tokens = vocabulary.encode(first, add_special=True, parse_special=False)
        tokens += _plain_tokens(rest, vocabulary)
    else:
        tokens = _plain_tokens(tuple(item), vocabulary)
    if not tokens:
        raise Invalid("an input is empty", hint="send at least one character", field="input")
    return tokens


def _pair(query: str, document: str, vocabulary: Vocabulary) -> list[int]:
    """Return BOS query EOS SEP document EOS, the format of rank heads, without the tokens that the model lacks.

    As format_prompt_rerank of llama.cpp's server does it.
    """
    model = vocabulary.model
    template = model.template_named("rerank")
    if template:
        return _templated_pair(template, query, document, vocabulary)
    eos = [vocabulary.eos if vocabulary.eos >= 0 else vocabulary.sep] if model.add_eos else []
    left = vocabulary.encode(query, add_special=False, parse_special=False)
    right = vocabulary.encode(document, add_special=False, parse_special=False)
    bos = [vocabulary.bos] if model.add_bos else []
    sep = [vocabulary.sep] if model.add_sep else []
    return [*bos, *left, *eos, *sep, *right, *eos]


def _templated_pair(template: str, query: str, document: str, vocabulary: Vocabulary) -> list[int]:
    """Return the tokens of a file's own template for pairs; only the template writes control tokens."""
    joint = choose_joint([template, query, document])
    contents = {"{query}": query, "{document}": document}
    text = _PLACES.sub(lambda place: vocabulary.texts.broken(contents[place[0]], joint), template)
    tokens = text_tokens(text, vocabulary, joint)
    return [*tokens, vocabulary.eos] if vocabulary.model.add_eos and tokens[-1:] != [vocabulary.eos] else tokens


def _cut(tokens: list[int], longest: int, index: int, *, truncate: bool) -> list[int]:
    """Return at most `longest` tokens; a cut keeps the last one, which is an end token."""
    if len(tokens) <= longest:
        return tokens
    if not truncate:
        raise ContextOverflow(len(tokens), longest, index=index)
    return [*tokens[: longest - 1], tokens[-1]]
