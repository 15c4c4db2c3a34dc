"""Pages of lists, as OpenAI's endpoints of stored objects return them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mullama.dialects import schema
from mullama.errors import Invalid
from mullama.names import JSONValue
from mullama.struct import Struct

_MOST = 100


class PageQuery(Struct, frozen=True, kw_only=True):
    """`limit` entries after the one with the id `after`, in an order."""

    limit: int = 20
    after: str | None = None
    newest_first: bool = False


def read_page(query: Mapping[str, str], *, order: str) -> PageQuery:
    """Read the parameters of a page; order: `asc` or `desc`, the default of this list."""
    limit, chosen = query.get("limit", "20"), query.get("order", order)
    if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:5]) <= _MOST:
        raise Invalid(f"limit must be between 1 and {_MOST}", field="limit")
    if chosen not in ("asc", "desc"):
        raise Invalid("order must be asc or desc", field="order")
    return PageQuery(limit=int(limit), after=query.get("after"), newest_first=chosen == "desc")


def page_of(entries: Sequence[Mapping[str, JSONValue]], page: PageQuery) -> dict[str, JSONValue]:
    """Return one page of entries, which have an `id` each and are in ascending order."""
    ordered = list(reversed(entries)) if page.newest_first else list(entries)
    ids = [entry["id"] for entry in ordered]
    if page.after is not None and page.after not in ids:
        raise Invalid(f"after: there is no item {page.after[:80]!r}", field="after")
    first = ids.index(page.after) + 1 if page.after is not None else 0
    chosen = ordered[first : first + page.limit]
    return listed(chosen, more=first + len(chosen) < len(ordered))


def listed(entries: Sequence[Mapping[str, JSONValue]], *, more: bool) -> dict[str, JSONValue]:
    """Return the list object of the entries of one page."""
    return {
        "object": "list",
        "data": list(entries),
        "first_id": entries[0]["id"] if entries else None,
        "last_id": entries[-1]["id"] if entries else None,
        "has_more": more,
    }


LIST_SCHEMA = schema.exact(
    object=schema.constant("list"),
    data=schema.listed(schema.RECORD),
    first_id=schema.nullable(schema.STRING),
    last_id=schema.nullable(schema.STRING),
    has_more=schema.BOOLEAN,
)
