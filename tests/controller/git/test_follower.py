"""The follower of a repository: its pauses, the requests of git hosts, and the conditions of good and bad commits."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mullama.controller.conditions import Condition
from mullama.controller.git.follower import LONGEST_PAUSE, GitFollower, pause
from mullama.controller.git.requests import is_from_host
from mullama.errors import Denied, MullamaError, NotFound, Unavailable
from mullama.runtime.base import UNDO, Origin
from tests.git_host import GitHost, git_host
from tests.runtime.runtime_fixture import LocalServer

TEXT = "mullama: v1\nmodels: {a: builtin:tiny}\n"


@given(st.floats(1, 1e5), st.integers(0, 10_000))
def test_pauses_grow_to_a_bound(interval: float, failures: int) -> None:
    assert pause(interval, 0) == interval
    assert interval <= pause(interval, failures) <= max(interval, LONGEST_PAUSE)
    assert pause(interval, failures) <= pause(interval, failures + 1)


BODY, SECRET = b'{"ref": "refs/heads/main"}', "s3cret"
SIGNED = hmac.new(SECRET.encode(), BODY, hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    ("headers", "accepted"),
    [
        ({"x-hub-signature-256": f"sha256={SIGNED}"}, True),
        ({"x-gitea-signature": SIGNED}, True),
        ({"x-gitlab-token": SECRET}, True),
        ({"x-hub-signature-256": f"sha256={SIGNED[::-1]}", "x-gitlab-token": "x"}, False),
        ({"x-gitlab-token": "other"}, False),
        ({"x-gitlab-token": "é"}, False),
        ({}, False),
    ],
)
def test_requests_of_git_hosts_prove_the_secret(headers: dict[str, str], accepted: bool) -> None:
    assert is_from_host(BODY, headers, SECRET) is accepted
    assert is_from_host(BODY + b" ", {"x-hub-signature-256": f"sha256={SIGNED}"}, SECRET) is False


@pytest.fixture
def host(tmp_path: Path) -> Iterator[GitHost]:
    with git_host(tmp_path / "host") as found:
        yield found


class Followed:
    def __init__(self, server: LocalServer) -> None:
        self.server, self.adopted = server, list[Origin]()
        self.env = {**os.environ, "HOOK": SECRET}
        self.git = GitFollower(
            folder=server.records.git_folder, current=lambda: server.reconciler.current, adopt=self.adopted.append,
            conditions=server.reconciler.status.conditions, event_log=server.event_log, env=self.env,
        )  # fmt: skip
        server.reconciler.state.subscribers.append(self.git.applied)

    async def begin(self, **git: Any) -> None:
        await self.server.apply({"a": {"from": self.server.script()}}, sync={"git": git})

    @property
    def condition(self) -> tuple[bool, str]:
        found = self.server.reconciler.status.conditions.items[Condition.GIT_SYNCED]
        return found["status"], found["reason"]


@pytest.mark.anyio
@pytest.mark.timeout(60)
async def test_each_commit_is_adopted_once_and_a_bad_one_is_a_condition(server: LocalServer, host: GitHost) -> None:
    followed = Followed(server)
    with pytest.raises(NotFound, match="follows no git repository"):
        await followed.git.sync()
    first = host.commit({"mullama.yaml": TEXT})
    await followed.begin(url=host.url)
    assert await followed.git.sync() == f"main is at commit {first[:12]}"
    (origin,) = followed.adopted
    assert origin.commit == first
    assert origin.checkout is not None
    assert Path(origin.checkout).read_text() == TEXT
    assert followed.condition == (False, "NotApplied")
    await followed.git.sync()
    assert len(followed.adopted) == 1, "the watcher begins its wait for a settled file again with each adoption"
    server.reconciler.comes_from(origin)  # as the watcher does
    assert followed.condition == (True, "Applied")
    await followed.git.sync()
    assert len(followed.adopted) == 1

    host.commit({"mullama.yaml": TEXT + "# forced\n"}, amend=True)
    with pytest.raises(MullamaError, match="was force-pushed"):
        await followed.git.sync()
    assert followed.condition == (False, "HistoryRewritten")
    await followed.git.sync(forced=True)
    server.reconciler.comes_from(followed.adopted[-1])
    assert (followed.condition, len(followed.adopted)) == ((True, "Applied"), 2)

    host.token = "x"
    with pytest.raises(Unavailable):
        await followed.git.sync()
    assert followed.condition == (False, "GitFailed")
    tree = followed.git.tree()
    assert tree is not None
    assert (tree["failures"], tree["commit"]) == (1, followed.adopted[-1].commit)


@pytest.mark.anyio
@pytest.mark.timeout(60)
async def test_an_unsigned_commit_leaves_the_signed_one_in_force(
    server: LocalServer, host: GitHost, tmp_path: Path
) -> None:
    followed = Followed(server)
    ann, line = host.signer("ann")
    (tmp_path / "signers").write_text(line)
    signed = host.commit({"mullama.yaml": TEXT}, key=ann)
    await followed.begin(url=host.url, verify={"ssh_signers": str(tmp_path / "signers")})
    await followed.git.sync()
    for _ in range(2):
        host.commit({"mullama.yaml": TEXT + "# anybody\n"})
        with pytest.raises(MullamaError, match="is not signed"):
            await followed.git.sync()
        with pytest.raises(MullamaError, match="is not signed"):
            await followed.git.sync(forced=True)
    assert followed.condition == (False, "UnsignedCommit")
    assert [origin.commit for origin in followed.adopted] == [signed]
    assert Path(followed.adopted[0].checkout or "").read_text() == TEXT
    again = host.commit({"mullama.yaml": TEXT + "# ann\n"}, key=ann)
    await followed.git.sync()
    server.reconciler.comes_from(followed.adopted[-1])
    assert (followed.condition, followed.adopted[-1].commit) == ((True, "Applied"), again)


@pytest.mark.anyio
@pytest.mark.timeout(60)
async def test_a_manifest_applied_by_hand_is_reported(server: LocalServer, host: GitHost) -> None:
    followed = Followed(server)
    host.commit({"mullama.yaml": TEXT})
    await followed.begin(url=host.url)
    await followed.git.sync()
    server.reconciler.comes_from(followed.adopted[0])
    await followed.git.sync()
    sync = {"git": {"url": host.url}}
    await server.apply({"a": {"from": server.script(), "system": "by hand"}}, sync=sync)
    assert followed.condition == (False, "HandEdited")
    await followed.git.sync()
    assert len(followed.adopted) == 1
    await followed.git.sync(forced=True)
    assert len(followed.adopted) == 2
    Path(followed.adopted[0].checkout or "").write_text("edited")
    await followed.git.sync()
    assert Path(followed.adopted[0].checkout or "").read_text() == TEXT
    assert any("were edited by hand" in event["message"] for event in server.event_log.kept())


@pytest.mark.anyio
@pytest.mark.timeout(60)
async def test_an_undo_and_a_change_by_hand_serve_until_the_next_commit(server: LocalServer, host: GitHost) -> None:
    followed = Followed(server)
    host.commit({"mullama.yaml": TEXT})
    await followed.begin(url=host.url)
    await followed.git.sync()
    server.reconciler.comes_from(followed.adopted[0])
    sync = {"git": {"url": host.url}}
    await server.apply({"a": {"from": server.script(), "system": "2"}}, None, followed.adopted[0], sync=sync)
    assert followed.condition == (True, "Applied")
    async for _ in server.operator.undo(None, UNDO):
        pass
    assert followed.condition == (False, "HandEdited")
    assert "commit" not in server.operator.history()[0]["origin"]
    await followed.git.sync()
    assert len(followed.adopted) == 1

    # A change by hand replaces a commit that waits, too.
    host.commit({"mullama.yaml": TEXT + "# waits\n"})
    await followed.git.sync()
    assert (len(followed.adopted), followed.condition) == (2, (False, "NotApplied"))
    await server.apply({"a": {"from": server.script(), "system": "3"}}, sync=sync)
    await followed.git.sync()
    assert (len(followed.adopted), followed.condition) == (2, (False, "HandEdited"))


@pytest.mark.anyio
async def test_a_notice_needs_the_secret(server: LocalServer) -> None:
    followed = Followed(server)
    with pytest.raises(NotFound, match="no git host may call"):
        followed.git.notice(BODY, {"x-gitlab-token": SECRET})
    await followed.begin(url="http://127.0.0.1:1/x.git", webhook={"secret": {"from_env": "HOOK"}})
    with pytest.raises(Denied):
        followed.git.notice(BODY, {"x-gitlab-token": "x"})
    followed.git.notice(BODY, {"x-gitlab-token": SECRET})
