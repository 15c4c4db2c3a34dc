"""Rate limits of keys and of models."""

from pydantic import Field

from mullama.manifest.spec.values import Block, Rate


class RateLimit(Block):
    """Requests and tokens per unit of time: `s`, `m`, `h` or `d`. Both are limits of their own."""

    requests: Rate | None = Field(default=None, examples=["60/m"])
    """Requests per unit of time, and at most as many at once."""
    tokens: Rate | None = Field(default=None, examples=["200k/h"])
    """Tokens of prompts and answers per unit of time. A request is accepted while tokens are left; its tokens are
    counted when it ends."""
