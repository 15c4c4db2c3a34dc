"""Requests of git hosts about a push: their proofs. Pure."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping


def is_from_host(body: bytes, headers: Mapping[str, str], secret: str) -> bool:
    """Return True if the host knows the secret.

    GitHub, Gitea and Forgejo sign the body (`x-hub-signature-256: sha256=HEX`, `x-gitea-signature: HEX`), GitLab sends
    the secret (`x-gitlab-token`). Header names are in lower case. The time taken does not depend on the secret.
    """
    signed = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    given = headers.get("x-hub-signature-256", "").removeprefix("sha256=") or headers.get("x-gitea-signature", "")
    if given:
        return hmac.compare_digest(given.encode(), signed.encode())
    return hmac.compare_digest(headers.get("x-gitlab-token", "").encode(), secret.encode())
