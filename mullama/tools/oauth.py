"""Tokens of OAuth for requests to a server of tools, by client credentials (RFC 6749, 4.4; RFC 8707 names the server).

The manifest names the address of the tokens, so that no server leads the secret of the client to another place.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import quote_plus, urlencode

import httpx2

from mullama.struct import Struct, repr_without

_SPARE: Final = 30.0
"""Seconds before its end in which a token is replaced."""
_IN_HEADER: Final = re.compile(r"[!-~]{1,8192}")
REFUSED: Final = "refused"
"""The extension of a failed answer with the status of the server."""


class ClientCredentials(Struct, frozen=True, kw_only=True):
    """The client that mullama is at an authorization server."""

    token_url: str
    client_id: str
    client_secret: str
    scope: str = ""
    """Scopes with spaces between them; "" for those that the authorization server gives without a question."""
    resource: str = ""
    """The address of the server of tools, for which the token is."""

    __repr__ = repr_without("client_secret")


class TokenTransport(httpx2.AsyncBaseTransport):
    """Adds a token to each request. One that is refused is replaced once."""

    def __init__(
        self,
        inner: httpx2.AsyncBaseTransport,
        tokens: httpx2.AsyncClient,
        client: ClientCredentials,
        failure: Callable[[str], bytes],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """tokens: sends the requests for tokens. failure: returns the body of a failed request for its reason."""
        self._inner, self._tokens, self._client, self._failure, self._clock = inner, tokens, client, failure, clock
        self._token, self._until = "", 0.0
        self._asking = asyncio.Lock()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            token = await self._valid("")
            found = await self._sent(request, token)
            if found.extensions.get(REFUSED) == 401:
                await found.aclose()
                found = await self._sent(request, await self._valid(token))
        except _NoToken as error:
            body = self._failure(str(error))
            return httpx2.Response(502, headers={"content-type": "application/json"}, content=body, request=request)
        return found

    async def _sent(self, request: httpx2.Request, token: str) -> httpx2.Response:
        request.headers["authorization"] = f"Bearer {token}"
        return await self._inner.handle_async_request(request)

    async def _valid(self, refused: str) -> str:
        """Return a token that is not this one, which the server refused."""
        async with self._asking:
            if self._token == refused or self._clock() >= self._until:
                self._token, self._until = await self._new()
            return self._token

    async def _new(self) -> tuple[str, float]:
        client = self._client
        form = {"grant_type": "client_credentials", "resource": client.resource, "scope": client.scope}
        pair = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret)}"
        headers = {
            "authorization": f"Basic {base64.b64encode(pair.encode()).decode()}",
            "content-type": "application/x-www-form-urlencoded", "accept": "application/json",
        }  # fmt: skip
        body = urlencode({name: value for name, value in form.items() if value}).encode()
        try:
            answer = await self._tokens.post(client.token_url, content=body, headers=headers)
            tree = answer.json()
        except (httpx2.HTTPError, httpx2.StreamError, ValueError) as error:
            raise _NoToken("gets no token: the answer of oauth.token_url has a wrong form") from error
        if (status := answer.extensions.get(REFUSED)) in (400, 401, 403):
            raise _NoToken(
                f"gets no token: oauth.token_url refuses the client with status {status}; "
                "check client_id, client_secret and scopes"
            )
        if not isinstance(tree, dict) or answer.status_code != 200:
            reason = tree.get("reason") if isinstance(tree, dict) else None
            raise _NoToken(f"gets no token: oauth.token_url {reason or 'answered in a wrong form'}")
        token, kind, seconds = tree.get("access_token"), tree.get("token_type"), tree.get("expires_in")
        if not isinstance(token, str) or not _IN_HEADER.fullmatch(token):
            raise _NoToken("gets no token: the answer of oauth.token_url has no access_token")
        if isinstance(kind, str) and kind.lower() != "bearer":
            raise _NoToken("gets no token that it can use: the token_type of oauth.token_url is not Bearer")
        lasts = float(seconds) if isinstance(seconds, int | float) and not isinstance(seconds, bool) else 300.0
        return token, self._clock() + max(0.0, lasts - _SPARE)

    async def aclose(self) -> None:
        await self._tokens.aclose()
        await self._inner.aclose()


def failed_token(reason: str) -> bytes:
    """Return the body of a failed request for a token."""
    return json.dumps({"reason": reason}).encode()


class _NoToken(Exception):
    """No token; the reason is a clause after the name of the server of tools."""
