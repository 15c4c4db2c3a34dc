"""The part of each rate limit that one gateway counts, so that all gateways together accept no more than declared.

A limit below the number of gateways is the exception: each of them accepts one.
"""

from __future__ import annotations

from mullama.manifest.spec import Manifest, RateLimit
from mullama.units import parse_rate, rate_literal


def shared_rates(manifest: Manifest, parts: int) -> Manifest:
    """Return the manifest with each limit divided by the number of gateways, rounded down, and at least 1."""
    keys = {
        name: key.model_copy(update={"rate": _part(key.rate, parts), "quota": _part(key.quota, parts)})
        for name, key in manifest.auth.keys.items()
    }
    models = {}
    for name, model in manifest.models.items():
        limits = model.limits
        changed = {"rate": _part(limits.rate, parts), "rate_per_key": _part(limits.rate_per_key, parts)}
        models[name] = model.model_copy(update={"limits": limits.model_copy(update=changed)})
    auth = manifest.auth.model_copy(update={"keys": keys})
    return manifest.model_copy(update={"auth": auth, "models": models})


def _part(limit: RateLimit | None, parts: int) -> RateLimit | None:
    if limit is None:
        return None
    return limit.model_copy(
        update={"requests": _divided(limit.requests, parts), "tokens": _divided(limit.tokens, parts)}
    )


def _divided(rate: str | None, parts: int) -> str | None:
    if rate is None:
        return None
    count, seconds = parse_rate(rate)
    return rate_literal(max(1, count // parts), seconds)
