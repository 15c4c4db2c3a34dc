"""Answers with the logprobs of their tokens, and their comparison with texts from other requests.

Two requests may compute the same prompt in batches of other shapes, so their texts may differ from the first near tie
on (see `tests/engines/near_tie.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.engines.near_tie import QUANTISED
from tests.official_clients import openai


@dataclass(frozen=True)
class ScoredAnswer:
    """A greedy answer: its text, the text of each token, and by how much each was ahead of the next likely one."""

    text: str
    tokens: tuple[str, ...]
    gaps: tuple[float, ...]

    def assert_same(self, text: str) -> None:
        """Fail unless the other text is this one, or leaves it at a near tie."""
        if text == self.text:
            return
        common = next((i for i, (a, b) in enumerate(zip(self.text, text, strict=False)) if a != b), None)
        if common is None:
            common = min(len(self.text), len(text))
        start = 0
        for token, gap in zip(self.tokens, self.gaps, strict=True):
            # The other choice may begin with the same characters, so a tie anywhere in the token explains the rest.
            if start + len(token) >= common and gap <= 2 * QUANTISED:
                return
            if start > common:
                break
            start += len(token)
        raise AssertionError(f"{text!r} leaves {self.text!r} at character {common}, where no near tie is")


def scored(gpt: openai.OpenAI, model: str, prompt: str, most: int) -> ScoredAnswer:
    """The greedy answer to a chat message, computed without what is in memory."""
    found = gpt.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": prompt}],
        max_tokens=most,
        temperature=0,
        logprobs=True,
        top_logprobs=2,
        extra_body={"cache_prompt": False},
    )
    choice = found.choices[0]
    entries = (choice.logprobs and choice.logprobs.content) or []
    return ScoredAnswer(
        text=choice.message.content or "",
        tokens=tuple(entry.token for entry in entries),
        gaps=tuple(entry.top_logprobs[0].logprob - entry.top_logprobs[1].logprob for entry in entries),
    )
