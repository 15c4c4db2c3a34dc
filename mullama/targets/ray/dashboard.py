"""The REST API of a cluster's dashboard: the config of Serve, and the logs of replicas. It needs no Ray here."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from mullama.errors import Denied, Invalid, MullamaError, TimedOut, Unavailable

_APPLICATIONS = "/api/serve/applications/"
_SECONDS = 60.0
"""The first request starts Serve, which takes several seconds."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect, which would send the token to another address."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Dashboard:
    """One cluster. address: `http://HOST:PORT` of the dashboard. token: of a cluster with token authentication."""

    def __init__(self, address: str, token: str = "") -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Invalid(
                f"--address {address!r} is no address of a dashboard",
                hint="it begins with http:// or https://, such as http://HOST:8265; Ray's own ports are not meant",
            )
        self.address, self._token = address.rstrip("/"), token
        self._opener = urllib.request.build_opener(_NoRedirects)

    def details(self) -> Mapping[str, Any]:
        """Return all applications with their configs and states."""
        text = self._call("GET", _APPLICATIONS)
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, Mapping):
            raise Invalid(f"{self.address} answered no JSON", hint="is it a dashboard of Ray?")
        return found

    def put(self, config: Mapping[str, Any]) -> None:
        """Declare the complete list of applications."""
        self._call("PUT", _APPLICATIONS, config)

    def log(self, node: str, file: str, lines: int) -> str:
        """Return the last lines of a log file of a node."""
        query = urlencode({"node_id": node, "filename": file.lstrip("/"), "lines": lines}, quote_via=quote)
        text = self._call("GET", f"/api/v0/logs/file?{query}")
        return text.removeprefix("1")  # the first byte of each part says that it is one of the file

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> str:
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json", "user-agent": "mullama"}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(self.address + path, data=data, headers=headers, method=method)
        try:
            with self._opener.open(request, timeout=_SECONDS) as answer:
                found: bytes = answer.read()
                return found.decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            raise _refusal(self.address, error.code, error.read().decode("utf-8", "replace")) from error
        except TimeoutError as error:
            raise TimedOut(f"the dashboard {self.address} did not answer in {_SECONDS:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise Unavailable(
                f"the dashboard {self.address} cannot be reached: {reason}",
                hint="--address names it; `ray status` on a node of the cluster shows whether Ray runs",
            ) from error


def _refusal(address: str, status: int, text: str) -> MullamaError:
    last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), f"status {status}")[:400]
    if status in (401, 403):
        return Denied(f"the dashboard {address} refuses: {last}", hint="set RAY_AUTH_TOKEN", authenticated=True)
    if status == 400:
        return Invalid(f"Ray Serve refuses the config: {last}")
    return Unavailable(f"the dashboard {address} failed: {last}")
