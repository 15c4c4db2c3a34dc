"""Servers of tools that a request names, whose tools this server calls for the model. Pure."""

from __future__ import annotations

import hashlib
import re

from mullama.names import JSONValue
from mullama.struct import Struct, equality_without

LONGEST_FUNCTION = 64
"""The most characters of a function name in every dialect."""
_DIGEST = 8  # hex digits that tell shortened names apart
_OTHER = re.compile(r"[^a-zA-Z0-9_-]")


def function_name(server: str, tool: str) -> str:
    """Return the name in the prompt of a tool of a server: `{server}__{tool}` in the characters [a-zA-Z0-9_-].

    A name that this changes, or of more than 64 characters, ends with a digest of the whole name.
    """
    whole = f"{server}__{tool}"
    plain = _OTHER.sub("_", whole)
    if plain == whole and len(whole) <= LONGEST_FUNCTION:
        return whole
    digest = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]
    return f"{plain[: LONGEST_FUNCTION - _DIGEST - 1]}_{digest}"


def may_be_of_server(function: str) -> bool:
    """Return True for a name that `function_name` can return."""
    return "__" in function


class ApprovalRule(Struct, frozen=True, kw_only=True):
    """The tools of a server whose calls a person must approve."""

    others: bool = False
    """Those that `names` does not have need an approval, and those that it has need none; False for the reverse."""
    names: tuple[str, ...] = ()

    def needs(self, tool: str) -> bool:
        """Return True if a call of this tool needs an approval."""
        return (tool in self.names) != self.others


NO_APPROVAL = ApprovalRule()
ALWAYS = ApprovalRule(others=True)


class ToolServer(Struct, frozen=True, kw_only=True):
    """A server of tools that a request names."""

    label: str
    """Its name at the client, with which the functions of its tools begin."""
    url: str = ""
    """Its address; "" for the server that the manifest declares under the label."""
    only: tuple[str, ...] | None = None
    """The tools that the model may call; None for all."""
    without: tuple[str, ...] = ()
    """Tools that the model may not call."""
    approve: ApprovalRule = NO_APPROVAL
    """The approvals that the request asks for."""
    listed: bool = False
    """The conversation has the list of its tools already."""
    credentials: str = ""
    """The field of the request with headers or a token for the server, relative to `place`; "" for none."""
    search: bool = False
    """It is the search of the web of this server, and no server that the manifest declares under the label."""
    optional: bool = False
    """The request is answered without it where the manifest declares none."""
    fixed: tuple[tuple[str, JSONValue], ...] = ()
    """Arguments that the request sets in each call of its tools, unseen by the model."""
    place: str = ""
    """Its place in the request, for errors; no part of `==`."""

    __eq__, __hash__ = equality_without("place")

    def offers(self, tool: str) -> bool:
        """Return True if the model may call this tool."""
        return (self.only is None or tool in self.only) and tool not in self.without


class Approval(Struct, frozen=True, kw_only=True):
    """The answer of a person to the question whether a call may be made.

    The messages have the call, and an empty place for its result if it was approved.
    """

    id: str
    """The id of the call in the messages, and of the question."""
    approved: bool
    reason: str = ""
    """The person's reason."""


SEARCH_LABEL = "search"
"""The name of the search of the web among the servers of tools; a manifest declares no server of this name."""


def search_server(
    place: str, *, only: tuple[str, ...] | None = None, optional: bool = True, within: tuple[str, ...] = (),
    outside: tuple[str, ...] = (),
) -> ToolServer:  # fmt: skip
    """Return the search of the web that a request asks for.

    within: domains, each with or without a path, to which pages must belong. outside: domains of no page.
    """
    given: tuple[tuple[str, JSONValue], ...] = (("within", list(within)), ("outside", list(outside)))
    return ToolServer(
        label=SEARCH_LABEL, search=True, optional=optional, only=only, listed=True, place=place,
        fixed=tuple((name, value) for name, value in given if value),
    )  # fmt: skip
