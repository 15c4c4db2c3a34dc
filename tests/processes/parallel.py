"""Runs the collected tests in MULLAMA_TEST_PROCESSES forked processes: `-p tests.processes.parallel`, on Linux.

The parent collects once, which takes a fifth of a minute, and each of its processes has the result. A process gets the
tests of one module at a time, so that what a module shares is made once. Half of the processes take the modules from
the front, where the tests are that wait; the others take them from the back, where the tests compute, so that both run
at any time. Short modules come when no other one waits: the processes end within seconds of each other
(`tests/processes/order.py`). A process that began with the modules of the web page takes them until none waits, and
has one browser; its event loop ends with the last of them, before a test of another folder begins.
A process that dies fails the test that it ran, and another one runs what is left of the module.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections import deque
from collections.abc import Iterator
from itertools import chain, groupby, pairwise
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

import pytest
from _pytest import runner

from tests.processes.order import is_short, module_of


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run all tests, unless the collection failed or is all that is wanted."""
    if session.testsfailed or session.config.option.collectonly:
        return None
    pool = _Pool(session)
    try:
        pool.run()
    finally:
        pool.stop()
    return True


class _Pool:
    """The parent's side: modules that wait for a process, and the processes with the tests that each has not ended."""

    def __init__(self, session: pytest.Session) -> None:
        self.session = session
        modules = groupby(range(len(session.items)), key=lambda number: module_of(session.items[number]))
        self.long: deque[list[int]] = deque()
        self.short: deque[list[int]] = deque()
        for numbers in (list(numbers) for _, numbers in modules):
            (self.short if is_short(session.items[number] for number in numbers) else self.long).append(numbers)
        self.given: dict[Connection, deque[int]] = {}
        self.pids: dict[Connection, int] = {}
        self.front: set[Connection] = set()

    def run(self) -> None:
        for number in range(min(int(os.environ["MULLAMA_TEST_PROCESSES"]), len(self.long) + len(self.short))):
            self.fork(front=number % 2 == 0)
        while self.pids:
            for connection in wait([*self.pids]):
                assert isinstance(connection, Connection)
                try:
                    message = connection.recv()
                except EOFError:
                    message = self
                if message is self:  # a process is forked, and not in the handler of an error
                    self.bury(connection)
                else:
                    self.hear(connection, message)
                if self.session.shouldfail:
                    raise self.session.Failed(self.session.shouldfail)

    def fork(self, *, front: bool) -> None:
        ours, theirs = Pipe()
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            for other in (*self.pids, ours):
                other.close()
            _work(self.session, theirs)
        theirs.close()
        self.pids[ours], self.given[ours] = pid, deque()
        if front:
            self.front.add(ours)

    def hear(self, connection: Connection, message: list[Any] | None) -> None:
        """Answer a process that wants tests, or report those that it has run: one test with its phases."""
        given = self.given[connection]
        if message is None:
            queue = self.long or self.short
            more = (queue.popleft() if connection in self.front else queue.pop()) if queue else []
            given.extend(more)
            connection.send(more)
            return
        given.popleft()
        hook = self.session.config.hook
        for data in message:
            report = hook.pytest_report_from_serializable(config=self.session.config, data=data)
            hook.pytest_runtest_logreport(report=report)

    def bury(self, connection: Connection) -> None:
        """Fail the test whose process died, and let another process continue."""
        _, status = os.waitpid(self.pids.pop(connection), 0)
        given = self.given.pop(connection)
        front = connection in self.front
        self.front.discard(connection)
        if not given:
            return
        item = self.session.items[given.popleft()]
        text = f"the process of this test ended with {os.waitstatus_to_exitcode(status)}"
        report = pytest.TestReport(item.nodeid, item.location, {}, "failed", text, "call")
        self.session.config.hook.pytest_runtest_logreport(report=report)
        if given:
            self.long.appendleft(list(given))
        self.fork(front=front)

    def stop(self) -> None:
        """Interrupt the tests that still run, and wait until their fixtures have ended what they started."""
        for pid in self.pids.values():
            os.kill(pid, signal.SIGINT)
        for pid in self.pids.values():
            os.waitpid(pid, 0)


def _work(session: pytest.Session, parent: Connection) -> None:
    """Run the tests that the parent gives, and end this process."""
    capture = session.config.pluginmanager.getplugin("capturemanager")
    capture.stop_global_capturing()  # the files of the parent are those of every process
    capture.start_global_capturing()
    session.config.pluginmanager.register(_Sender(session.config, parent))
    code = 1
    try:
        for item, following in pairwise(chain(_items(session, parent), (None,))):
            session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        code = 0
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        runner.pytest_sessionfinish(session)
    finally:
        atexit._run_exitfuncs()
        os._exit(code)


def _items(session: pytest.Session, parent: Connection) -> Iterator[pytest.Item]:
    while True:
        parent.send(None)
        numbers = parent.recv()
        if not numbers:
            return
        yield from (session.items[number] for number in numbers)


class _Sender:
    """Sends the reports of each test to the parent instead of to the terminal."""

    def __init__(self, config: pytest.Config, parent: Connection) -> None:
        self.config = config
        self.parent = parent

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        reports = runner.runtestprotocol(item, log=False, nextitem=nextitem)
        hook = self.config.hook
        self.parent.send([hook.pytest_report_to_serializable(config=self.config, report=report) for report in reports])
        return True
