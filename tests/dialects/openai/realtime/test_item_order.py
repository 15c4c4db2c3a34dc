"""The order of the items of a session."""

from __future__ import annotations

import pytest

from mullama.chat.types import TextPart
from mullama.dialects.openai.realtime.item_order import ROOT, ItemOrder
from mullama.dialects.openai.realtime.items import MOST_ITEMS, ConversationItem
from mullama.errors import Invalid, NotFound, TooLarge


def item(id: str, text: str = "") -> ConversationItem:
    return ConversationItem(id=id, role="user", parts=(TextPart(text=text),))


def ids(order: ItemOrder) -> str:
    return "".join(one.id for one in order.all)


@pytest.fixture
def order() -> ItemOrder:
    made = ItemOrder()
    for id in "abc":
        made.insert(item(id), made.last)
    return made


@pytest.mark.parametrize(
    ("previous", "expected"), [(ROOT, "xabc"), ("a", "axbc"), ("b", "abxc"), ("c", "abcx"), (None, "abcx")]
)
def test_an_item_follows_the_one_that_it_names(order: ItemOrder, previous: str | None, expected: str) -> None:
    order.insert(item("x"), previous)
    assert ids(order) == expected
    assert order.last == expected[-1]
    assert [order.before(id) for id in expected] == [None, *expected[:-1]]


def test_a_replaced_item_keeps_its_place_and_the_size_follows(order: ItemOrder) -> None:
    empty = order.size
    order.put(item("b", "a longer text"))
    assert ids(order) == "abc"
    assert order.size == empty - item("b").size + item("b", "a longer text").size
    order.remove(order.find("b", "item_id"))
    assert (ids(order), order.get("b"), order.before("c")) == ("ac", None, "a")
    for id in "ac":
        order.remove(order.find(id, "item_id"))
    assert (order.all, order.last, order.size) == ((), None, 0)


def test_unknown_known_and_too_many_items_are_refused(order: ItemOrder) -> None:
    with pytest.raises(NotFound, match="item_id: there is no item 'x'"):
        order.find("x", "item_id")
    with pytest.raises(Invalid, match="there is an item 'a'"):
        order.require_room("a")
    order.require_room("x")
    for number in range(3, MOST_ITEMS):
        order.put(item(f"item {number}"))
    with pytest.raises(TooLarge, match=f"has {MOST_ITEMS} items"):
        order.require_room("x")
