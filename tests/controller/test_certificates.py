"""The certificate in use follows its files; a bad one leaves the old one in use, with a condition."""

from __future__ import annotations

import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from mullama.controller.certificates import Certificates
from mullama.controller.conditions import Condition, Conditions
from mullama.controller.event_log import EventLog
from mullama.errors import Invalid
from mullama.manifest.spec import Tls
from tests.certificates import Authority

pytestmark = pytest.mark.anyio


class Followed:
    """Certificates of one pair of files, and the contexts that the listeners got."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        cert, key = self.authority.issue("server")
        self.settings = Tls(cert=cert, key=key)
        self.renewed: list[tuple[ssl.SSLContext, bool]] = []
        self.conditions, self.event_log, self.now = Conditions(), EventLog(), time.time() + 60
        self.all = Certificates(self._renew, self.conditions, self.event_log, lambda: self.now)

    async def _renew(self, context: ssl.SSLContext, drain: bool) -> None:
        self.renewed.append((context, drain))

    async def begin(self, *, starting: bool = False) -> None:
        self.all.use(await self.all.read(self.settings, starting=starting))

    async def look(self, times: int = 2) -> None:
        for _ in range(times):
            assert self.all.current is not None
            await self.all.look(self.all.current)

    @property
    def condition(self) -> dict[str, Any]:
        return self.conditions.items[Condition.CERTIFICATE_VALID]


@pytest.fixture
async def followed(tmp_path: Path) -> Followed:
    return Followed(tmp_path / "tls")


async def test_a_renewed_certificate_is_used_once_its_files_are_stable(followed: Followed) -> None:
    await followed.begin()
    await followed.look()
    assert (followed.renewed, followed.condition["status"]) == ([], True)
    followed.authority.issue("server")
    await followed.look(1)
    assert followed.renewed == []
    await followed.look(1)
    assert [drain for _, drain in followed.renewed] == [False]
    assert followed.event_log.kept()[-1]["kind"] == "certificate"
    await followed.look(3)
    assert len(followed.renewed) == 1


@pytest.mark.parametrize("bad", ["expired", "mismatched", "missing"])
async def test_a_bad_renewal_leaves_the_old_certificate_in_use(bad: str, followed: Followed) -> None:
    await followed.begin()
    old = followed.all.current
    if bad == "expired":
        followed.authority.issue("server", days=-1)
    elif bad == "mismatched":
        Path(followed.settings.key).write_text(Path(followed.authority.issue("other")[1]).read_text())
    else:
        Path(followed.settings.cert).unlink()
    await followed.look(4)
    assert followed.renewed == []
    assert followed.all.current is old
    assert followed.condition["status"] is False
    assert followed.condition["reason"] == "CertificateRefused"
    assert "an old certificate is in use; server.tls" in followed.condition["message"]
    assert [e["kind"] for e in followed.event_log.kept()] == ["certificate-refused"]
    assert await followed.all.read(followed.settings, starting=False) is old  # other changes of the manifest still work
    followed.authority.issue("server")
    await followed.look()
    assert len(followed.renewed) == 1
    assert followed.condition["status"] is True


async def test_the_certificate_in_use_may_expire(followed: Followed) -> None:
    await followed.begin()
    followed.now += 31 * 86400
    await followed.look(1)
    assert followed.condition["status"] is False
    assert "expired on" in followed.condition["message"]


async def test_a_clock_that_jumps_changes_the_condition_alone(followed: Followed) -> None:
    await followed.begin()
    old = followed.all.current
    for days, valid in ((40, False), (-40, True), (-400, False), (400, True)):
        followed.now += days * 86400
        await followed.look(1)
        assert (followed.condition["status"], followed.all.current, followed.renewed) == (valid, old, [])


async def test_a_certificate_that_was_refused_by_a_wrong_clock_is_tried_again(followed: Followed) -> None:
    await followed.begin()
    followed.now -= 86400
    followed.authority.issue("server")
    await followed.look()
    assert "is valid from" in followed.condition["message"]
    followed.now += 86400
    await followed.look(61)
    assert len(followed.renewed) == 1
    assert followed.condition["status"] is True


async def test_a_start_accepts_an_expired_certificate_and_a_change_does_not(followed: Followed) -> None:
    followed.now += 31 * 86400
    with pytest.raises(Invalid, match="expired on"):
        await followed.begin()
    await followed.begin(starting=True)
    assert followed.condition["status"] is False
    assert followed.all.tree() is not None
    followed.all.use(None)
    assert followed.all.tree() is None
    assert Condition.CERTIFICATE_VALID not in followed.conditions.items


async def test_other_client_authorities_end_the_old_connections(followed: Followed) -> None:
    other = Authority(followed.authority.folder, "clients")
    followed.settings = Tls(cert=followed.settings.cert, key=followed.settings.key, client_ca=other.cert)
    await followed.begin()
    Authority(followed.authority.folder, "clients")
    await followed.look()
    assert [drain for _, drain in followed.renewed] == [True]
