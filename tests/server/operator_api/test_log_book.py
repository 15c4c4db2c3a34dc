"""The kept lines of the log: filters, bounds, followers, and hostile text."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.server.log_book import LEVELS, LogBook, LogFilter

ALL = LogFilter()


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """The logger of a part, apart from the handlers of the test run."""
    found = logging.getLogger("mullama.workers")
    found.propagate, level = False, found.level
    found.setLevel(logging.DEBUG)
    yield found
    found.propagate = True
    found.setLevel(level)
    for handler in list(found.handlers):
        found.removeHandler(handler)


def book_of(logger: logging.Logger, **bounds: int) -> LogBook:
    book = LogBook(**bounds)
    logger.addHandler(book)
    return book


def texts(book: LogBook, wanted: LogFilter = ALL, most: int = 1000) -> list[str]:
    return [line["text"] for line in book.read(wanted, most)]


def test_lines_are_filtered_by_model_part_level_text_and_time(logger: logging.Logger) -> None:
    book = book_of(logger)
    logger.info("request", extra={"fields": {"model": "chat", "answered_by": "tiny", "status": 200}})
    logger.warning("%s ended", "worker 7", extra={"models": ("tiny", "other")})
    logger.debug("detail")

    assert texts(book) == ["request model=chat answered_by=tiny status=200", "worker 7 ended", "detail"]
    assert texts(book, LogFilter(model="chat")) == ["request model=chat answered_by=tiny status=200"]
    assert len(texts(book, LogFilter(model="tiny"))) == 2
    assert texts(book, LogFilter(level=LEVELS["warning"])) == ["worker 7 ended"]
    assert texts(book, LogFilter(text="ENDED")) == ["worker 7 ended"]
    assert texts(book, LogFilter(part="workers"), 1) == ["detail"]
    assert texts(book, LogFilter(part="http")) == []
    assert texts(book, LogFilter(since=4e9)) == []
    line = book.read(ALL, 2)[0]
    assert (line["id"], line["level"], line["part"], line["models"]) == (2, "warning", "workers", ["tiny", "other"])


def test_the_lines_are_bounded_by_their_number_and_their_bytes(logger: logging.Logger) -> None:
    by_number = book_of(logger, most_lines=3)
    by_bytes = book_of(logger, most_bytes=10_000)
    for number in range(10):
        logger.info("%d %s", number, "x" * 3000)
    assert [text[0] for text in texts(by_number)] == ["7", "8", "9"]
    assert [text[0] for text in texts(by_bytes)] == ["8", "9"]
    logger.info("y" * 1_000_000)
    assert len(texts(by_bytes)) == 1
    assert len(texts(by_bytes)[0]) < 17_000
    assert "more characters" in texts(by_bytes)[0]


def test_a_traceback_and_a_secret_in_an_address(logger: logging.Logger) -> None:
    book = book_of(logger)
    try:
        raise ValueError("wrong")
    except ValueError:
        logger.exception("failed at https://user:word@h.example.org/x?key=canary")
    (text,) = texts(book)
    assert "ValueError: wrong" in text
    assert "word" not in text
    assert "canary" not in text


@given(st.text(), st.text())
def test_no_text_leaves_printable_ascii(event: str, value: str) -> None:
    book = LogBook()
    record = logging.makeLogRecord({"name": "mullama.requests", "levelno": 20, "msg": event, "args": None})
    record.fields = {"path": value}
    book.handle(record)
    (line,) = book.read(ALL, 1)
    assert line["text"].isascii()
    assert line["text"].isprintable()


async def taken(lines: AsyncIterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    found = []
    async for line in lines:
        found.append(line)
        if len(found) == count:
            break
    return found


@pytest.mark.anyio
async def test_a_follower_gets_each_wanted_line_once_from_any_thread(logger: logging.Logger) -> None:
    book = book_of(logger)
    logger.info("old")
    logger.warning("first")
    following = asyncio.create_task(taken(book.follow(LogFilter(level=LEVELS["warning"]), 1), 3))
    await asyncio.sleep(0)
    thread = threading.Thread(target=lambda: (logger.info("not this"), logger.error("second"), logger.error("third")))
    thread.start()
    lines = await following
    thread.join()
    assert [line["text"] for line in lines] == ["first", "second", "third"]
    assert {line["dropped"] for line in lines} == {0}


@pytest.mark.anyio
async def test_a_slow_follower_learns_how_many_lines_it_missed(logger: logging.Logger) -> None:
    book = book_of(logger, most_lines=2)
    for number in range(6):
        logger.info("%d", number)
    lines = await taken(book.follow(ALL, 1), 2)
    assert [(line["text"], line["dropped"]) for line in lines] == [("4", 3), ("5", 0)]
