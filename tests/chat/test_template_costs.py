"""The ticks that filters burn before they run: in proportion to the work, so that no template takes seconds."""

from __future__ import annotations

from typing import Any

import pytest

from mullama.chat.template import ChatInput, SpecialTexts, compile_template
from mullama.chat.template.filters import _pay
from mullama.chat.template.fuel import Fuel, OutOfFuel
from mullama.chat.types import text_message
from mullama.errors import Invalid, MullamaError

NUMBERS = list(range(1600))
RECORDS = [{"a": 1}] * 1600


def ticks(name: str, value: object, *args: object, **kwargs: object) -> int:
    fuel = Fuel(10**9)
    _pay(fuel, name, value, args, kwargs)
    return 10**9 - fuel._left


@pytest.mark.parametrize(
    ("name", "value", "args", "wanted"),
    [
        ("length", NUMBERS, (), 1),
        ("list", NUMBERS, (), 202),
        ("select", NUMBERS, (), 1602),
        ("selectattr", RECORDS, ("a",), 3202),
        ("selectattr", NUMBERS, ("real",), 14402),
        ("map", RECORDS, (), 3202),
        ("groupby", RECORDS, ("a",), 11204),
        ("sort", NUMBERS, (), 1603),
        ("upper", "x" * 64_000, (), 127),
        ("urlencode", "x" * 64_000, (), 32034),
    ],
)
def test_a_filter_pays_for_its_elements_and_its_lookups(
    name: str, value: Any, args: tuple[object, ...], wanted: int
) -> None:
    assert ticks(name, value, *args) == wanted


def test_a_deeper_attribute_costs_more() -> None:
    plain = ticks("map", RECORDS, attribute="a")
    assert ticks("map", RECORDS, attribute="a.b.c") == plain + 2 * len(RECORDS)


@pytest.mark.parametrize(
    "work",
    [
        "l|selectattr('real')|list",
        "l|map(attribute='real')|list",
        "l|unique(attribute='real')|list",
        "l|sort(attribute='real')",
        "(l|join)|urlencode",
        "(l|join(' ')).title()",
        "-1 in l",
    ],
)
def test_a_hostile_template_runs_out_of_fuel_after_few_repetitions(work: str) -> None:
    loop = "{% for i in range(200) %}{% set x = " + work + " %}{% endfor %}"
    shown = "{% for m in messages %}{{ m.content }}{% endfor %}"
    source = shown + "{% if messages|length > 200 %}{% set l = range(9000)|list %}" + loop + "{% endif %}"
    template = compile_template(source, "jinja", SpecialTexts())
    with pytest.raises(MullamaError, match="too much work"):
        template.render(ChatInput(messages=(text_message("user", "Hi"),) * 300))


@pytest.mark.parametrize("contents", [("x" * 7_000_000,), ("x" * 3_500_000,) * 2])
def test_messages_that_no_template_can_render_are_refused(contents: tuple[str, ...]) -> None:
    template = compile_template(
        "{% for m in messages %}{{ m.role }}{{ m.content[:9] }}{% endfor %}", "jinja", SpecialTexts()
    )
    with pytest.raises(Invalid, match="hold more than 4000000 characters") as raised:
        template.render(ChatInput(messages=tuple(text_message("user", content) for content in contents)))
    assert raised.value.field == "messages"
    assert isinstance(raised.value.__cause__, OutOfFuel)
