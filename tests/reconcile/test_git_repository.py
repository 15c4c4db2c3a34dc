"""The clone of a repository: commits are fetched, checked and put in force at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mullama.errors import Invalid, NotFound, Unavailable
from mullama.manifest.spec import GitSync
from mullama.reconcile import git_repository
from mullama.reconcile.git_repository import GitRepository, HistoryRewritten, UnsignedCommit
from tests.git_host import GitHost, git_host

TEXT = "mullama: v1\nmodels: {a: builtin:tiny}\n"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[GitHost]:
    with git_host(tmp_path / "host") as found:
        yield found


def clone(host: GitHost, tmp_path: Path, **settings: Any) -> GitRepository:
    given = GitSync.model_validate({"url": host.url, **settings})
    return GitRepository(tmp_path / "git", given, {**os.environ, "TOKEN": "letmein", "WRONG": "no"})


def update(repository: GitRepository) -> str:
    commit, before = repository.fetch(), repository.commit
    repository.check(commit, after=before)
    repository.check_out(commit)
    return commit


_SSH = """\
Warning: Permanently added 'git.example.org' (ED25519) to the list of known hosts.\r
git@git.example.org: Permission denied (publickey).\r
fatal: Could not read from remote repository.

Please make sure you have the correct access rights
and the repository exists.
"""


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        (_SSH, "git@git.example.org: Permission denied (publickey)."),
        ("fatal: couldn't find remote ref nope\n", "couldn't find remote ref nope"),
        (
            "remote: Not found.\nfatal: repository 'https://h/x.git/' not found\n",
            "repository 'https://h/x.git/' not found",
        ),
        ("fatal: Could not read from remote repository.\n", "Could not read from remote repository."),
        ("error: no key\n", "error: no key"),
        ("", ""),
    ],
)
def test_the_reason_of_a_failure_is_the_line_that_has_it(errors: str, reason: str) -> None:
    assert git_repository.reason_of(errors) == reason


@pytest.mark.timeout(30)
def test_each_commit_is_put_in_force_under_the_same_path(host: GitHost, tmp_path: Path) -> None:
    repository = clone(host, tmp_path)
    assert repository.commit is None
    for text in (TEXT, TEXT + "# more\n"):
        commit = host.commit({"mullama.yaml": text, "templates/a.jinja": text})
        assert update(repository) == repository.commit == commit
        assert Path(repository.manifest).read_text() == text
        assert (repository.current / "templates/a.jinja").read_text() == text
    trees = list((tmp_path / "git").glob("*/trees/*"))
    assert len(trees) == 2  # of the commit in force: its files and their digest
    host.git("tag", "v1")
    host.git("push", "--quiet", str(host.folder / "models.git"), "v1")
    host.git("update-server-info", where=host.folder / "models.git")
    host.commit({"mullama.yaml": "other"})
    assert update(clone(host, tmp_path, ref="v1")) == commit
    assert len(list((tmp_path / "git").iterdir())) == 1  # the clone of the other ref is gone


@pytest.mark.timeout(30)
def test_a_force_push_and_a_commit_without_the_manifest_are_refused(host: GitHost, tmp_path: Path) -> None:
    repository = clone(host, tmp_path)
    host.commit({"mullama.yaml": TEXT})
    first = update(repository)
    host.commit({"mullama.yaml": TEXT + "# forced\n"}, amend=True)
    with pytest.raises(HistoryRewritten, match=f"main was force-pushed: commit .* does not follow {first[:12]}"):
        update(repository)
    assert repository.commit == first
    forced = repository.fetch()
    repository.check(forced, after=None)
    repository.check_out(forced)
    host.commit({"mullama.yaml": None})
    with pytest.raises(NotFound, match=r"has no file mullama\.yaml"):
        update(repository)
    assert repository.commit == forced


@pytest.mark.timeout(30)
def test_only_commits_of_the_signers_are_accepted(host: GitHost, tmp_path: Path) -> None:
    ann, line = host.signer("ann")
    eve, _ = host.signer("eve")
    signers = tmp_path / "signers"
    signers.write_text(line)
    repository = clone(host, tmp_path, verify={"ssh_signers": str(signers)})
    for key in (None, eve):
        host.commit({"mullama.yaml": TEXT}, key=key)
        with pytest.raises(UnsignedCommit, match="is not signed by a signer of"):
            update(repository)
    assert repository.commit is None
    assert update(repository) if (signed := host.commit({"mullama.yaml": TEXT}, key=ann)) else None
    assert repository.commit == signed
    signers.unlink()
    host.commit({}, key=ann)
    with pytest.raises(NotFound, match="signers cannot be read"):
        update(repository)


@pytest.mark.timeout(30)
def test_the_token_is_sent_and_in_no_message(host: GitHost, tmp_path: Path) -> None:
    host.commit({"mullama.yaml": TEXT})
    host.token = "letmein"
    with pytest.raises(Unavailable) as refused:
        clone(host, tmp_path).fetch()
    assert "403" in str(refused.value) or "unable to access" in str(refused.value)
    with pytest.raises(Unavailable):
        clone(host, tmp_path, token={"from_env": "WRONG"}).fetch()
    with pytest.raises(NotFound, match=r"sync\.git\.token: the environment variable ABSENT"):
        clone(host, tmp_path, token={"from_env": "ABSENT"}).fetch()
    assert clone(host, tmp_path, token={"from_env": "TOKEN"}).fetch()


@pytest.mark.timeout(30)
def test_what_is_not_there_is_unavailable(host: GitHost, tmp_path: Path) -> None:
    host.commit({"mullama.yaml": TEXT})
    with pytest.raises(Unavailable, match="couldn't find remote ref"):
        clone(host, tmp_path, ref="gone").fetch()
    with pytest.raises(Unavailable):
        GitRepository(tmp_path / "git", GitSync(url="http://127.0.0.1:1/x.git"), dict(os.environ)).fetch()


@pytest.mark.timeout(30)
def test_files_edited_by_hand_are_restored(host: GitHost, tmp_path: Path) -> None:
    repository = clone(host, tmp_path)
    assert repository.restore() is False
    host.commit({"mullama.yaml": TEXT})
    update(repository)
    assert repository.restore() is False
    Path(repository.manifest).write_text("edited")
    assert repository.restore() is True
    assert Path(repository.manifest).read_text() == TEXT


@pytest.mark.timeout(30)
def test_a_checkout_is_bounded_and_leaves_its_folder_alone(
    host: GitHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (host.work / "outside").symlink_to("/etc")
    host.commit({"mullama.yaml": TEXT})
    repository = clone(host, tmp_path)
    with pytest.raises(Invalid, match="has a link that leaves its folder: outside"):
        update(repository)
    assert repository.commit is None
    (host.work / "outside").unlink()
    host.commit({"mullama.yaml": TEXT, "large": "x" * 5000})
    monkeypatch.setattr(git_repository, "_MOST_BYTES", 4000)
    with pytest.raises(Invalid, match="have more than"):
        update(repository)
