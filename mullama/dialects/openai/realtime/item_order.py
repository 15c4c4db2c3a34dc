"""The items of a realtime session in their order, and their size."""

from __future__ import annotations

from mullama.dialects.openai.realtime.items import MOST_ITEMS, ConversationItem
from mullama.errors import Invalid, NotFound, TooLarge

ROOT = "root"
"""The `previous_item_id` of an item that is to be the first one."""


class ItemOrder:
    """The items by id. An item that is replaced keeps its place."""

    def __init__(self) -> None:
        self._items: dict[str, ConversationItem] = {}
        self.size = 0
        """Bytes of all items."""

    @property
    def all(self) -> tuple[ConversationItem, ...]:
        """The items, the first one first."""
        return tuple(self._items.values())

    @property
    def last(self) -> str | None:
        """The id of the last item; None without any."""
        return next(reversed(self._items), None)

    def get(self, id: str) -> ConversationItem | None:
        """Return an item; None without it."""
        return self._items.get(id)

    def find(self, id: str, field: str) -> ConversationItem:
        """Return an item that a field of an event names. Raises `NotFound`."""
        if (item := self._items.get(id)) is None:
            raise NotFound(f"{field}: there is no item {id!r}")
        return item

    def before(self, id: str) -> str | None:
        """Return the id of the item before another one; None for the first one."""
        previous = None
        for key in self._items:
            if key == id:
                break
            previous = key
        return previous

    def require_room(self, id: str) -> None:
        """Raise `Invalid` for an id that an item has, and `TooLarge` for a full conversation."""
        if id in self._items:
            raise Invalid(f"item.id: there is an item {id!r}", hint="leave out the id", field="item.id")
        if len(self._items) >= MOST_ITEMS:
            raise TooLarge(f"the conversation has {MOST_ITEMS} items", hint="delete items, or begin another session")

    def insert(self, item: ConversationItem, previous: str | None) -> None:
        """Put a new item after another one, which is there; None: as the last one, `ROOT`: as the first one."""
        if previous == ROOT:
            self._items = {item.id: item, **self._items}
        elif previous is None or previous == self.last:
            self._items[item.id] = item
        else:
            self._items = {
                id: one for key, known in self._items.items()
                for id, one in ([(key, known), (item.id, item)] if key == previous else [(key, known)])
            }  # fmt: skip
        self.size += item.size

    def put(self, item: ConversationItem) -> None:
        """Replace an item; a new one is the last one."""
        before = self._items.get(item.id)
        self.size += item.size - (before.size if before else 0)
        self._items[item.id] = item

    def remove(self, item: ConversationItem) -> None:
        """Remove an item that is there."""
        self.size -= self._items.pop(item.id).size
