"""The deploy key of a repository over SSH: with a recorded ssh command, and with a real sshd where one is installed."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mullama.errors import NotFound, Unavailable
from mullama.manifest.spec import GitSync
from mullama.reconcile.git_repository import GitRepository
from tests.git_host import GitHost, git_host

pytestmark = pytest.mark.timeout(60)
TEXT = "mullama: v1\nmodels: {a: builtin:tiny}\n"
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nline\n-----END OPENSSH PRIVATE KEY-----"

# Notes its arguments and the key file, then does the part of the server.
_SSH = """#!{python}
import json, os, sys
arguments = sys.argv[1:]
keys = [arguments[i + 1] for i, word in enumerate(arguments) if word == "-i"]
noted = {{"arguments": arguments, "environment": sorted(os.environ)}}
noted["keys"] = [[path, oct(os.stat(path).st_mode & 0o777), open(path).read()] for path in keys]
with open({notes!r}, "a") as file:
    file.write(json.dumps(noted) + "\\n")
if os.path.exists({broken!r}):
    sys.exit("Permission denied (publickey).")
os.execvp("sh", ["sh", "-c", arguments[-1]])
"""


class RecordedSsh:
    """A folder with a command `ssh` that notes its calls."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.notes, self.broken = folder, folder / "notes", folder / "broken"
        command = folder / "ssh"
        command.write_text(_SSH.format(python=sys.executable, notes=str(self.notes), broken=str(self.broken)))
        command.chmod(0o700)

    @property
    def calls(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.notes.read_text().splitlines()]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[GitHost]:
    with git_host(tmp_path / "host") as found:
        found.commit({"mullama.yaml": TEXT})
        yield found


@pytest.fixture
def ssh(tmp_path: Path) -> RecordedSsh:
    return RecordedSsh(tmp_path / "bin")


def repository(tmp_path: Path, url: str, env: dict[str, str], **settings: Any) -> GitRepository:
    given = GitSync.model_validate({"url": url, **settings})
    return GitRepository(tmp_path / "git", given, {**os.environ, **env})


def options_of(arguments: list[str]) -> dict[str, str]:
    """The options after each `-o`."""
    words = [arguments[place + 1] for place, word in enumerate(arguments) if word == "-o"]
    return dict(word.split("=", 1) for word in words)


@pytest.mark.parametrize("known", [False, True], ids=["first key of the host", "known hosts"])
def test_ssh_gets_the_key_in_a_private_file_that_is_gone_afterwards(
    known: bool, host: GitHost, ssh: RecordedSsh, tmp_path: Path
) -> None:
    env = {"DEPLOY": KEY, "PATH": f"{ssh.folder}:{os.environ['PATH']}", "SSH_AUTH_SOCK": "/agent"}
    hosts = {"known_hosts": str(tmp_path / "known")} if known else {}
    url = f"ssh://git@git.example.org{host.folder}/models.git"
    clone = repository(tmp_path, url, env, deploy_key={"from_env": "DEPLOY"}, **hosts)
    commit = clone.fetch()
    clone.check(commit, after=None)
    clone.check_out(commit)

    assert Path(clone.manifest).read_text() == TEXT
    (call,) = ssh.calls
    ((path, mode, content),) = call["keys"]
    assert (mode, content) == ("0o600", f"{KEY}\n")
    assert not Path(path).exists()
    options = options_of(call["arguments"])
    assert (options["BatchMode"], options["IdentitiesOnly"]) == ("yes", "yes")
    assert options["StrictHostKeyChecking"] == ("yes" if known else "accept-new")
    assert options["UserKnownHostsFile"] == (hosts["known_hosts"] if known else str(Path(path).parent / "known_hosts"))
    assert options["GlobalKnownHostsFile"] == os.devnull
    assert call["arguments"][call["arguments"].index("-F") + 1] == os.devnull, "no configuration adds keys or hosts"
    assert "git@git.example.org" in call["arguments"]
    assert not {"SSH_AUTH_SOCK", "DEPLOY"} & set(call["environment"]), "the key goes to no other program"
    assert KEY not in "".join(call["arguments"])


def test_without_a_deploy_key_ssh_is_configured_by_its_user(host: GitHost, ssh: RecordedSsh, tmp_path: Path) -> None:
    env = {"PATH": f"{ssh.folder}:{os.environ['PATH']}"}
    repository(tmp_path, f"ssh://git@git.example.org{host.folder}/models.git", env).fetch()
    (call,) = ssh.calls
    assert not {"-F", "-i"} & set(call["arguments"])


def test_a_refused_key_leaves_no_file_and_appears_in_no_message(
    host: GitHost, ssh: RecordedSsh, tmp_path: Path
) -> None:
    ssh.broken.touch()
    env = {"DEPLOY": KEY, "PATH": f"{ssh.folder}:{os.environ['PATH']}"}
    clone = repository(
        tmp_path, f"git@git.example.org:{host.folder}/models.git", env, deploy_key={"from_env": "DEPLOY"}
    )
    with pytest.raises(Unavailable) as refused:
        clone.fetch()
    assert "PRIVATE KEY" not in str(refused.value)
    ((path, _, _),) = ssh.calls[0]["keys"]
    assert not Path(path).exists()
    with pytest.raises(NotFound, match=r"sync\.git\.deploy_key: the environment variable ABSENT"):
        repository(tmp_path, "git@h:x.git", env, deploy_key={"from_env": "ABSENT"}).fetch()
    assert len(ssh.calls) == 1


# With a real server


@contextmanager
def sshd(folder: Path) -> Iterator[int]:
    """Run sshd for each connection to a port of loopback, for the user of this process; yield the port."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("sshd is not installed")
    folder.mkdir()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "host")], check=True, timeout=30)
    (folder / "config").write_text(
        f"HostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\nStrictModes no\nPermitRootLogin yes\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n"
    )
    checked = subprocess.run(
        [program, "-t", "-f", str(folder / "config")], capture_output=True, text=True, check=False, timeout=30
    )
    if checked.returncode != 0:
        pytest.skip(f"sshd cannot run here: {checked.stderr.strip()}")
    listener = socket.create_server(("127.0.0.1", 0))
    processes: list[subprocess.Popen[bytes]] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, (folder / "log").open("ab") as log:
                command = [program, "-i", "-e", "-f", str(folder / "config")]
                processes.append(subprocess.Popen(command, stdin=connection, stdout=connection, stderr=log))

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join(30)
        for process in processes:
            process.wait(30)


def test_a_real_sshd_accepts_the_deploy_key_and_no_other(host: GitHost, tmp_path: Path) -> None:
    deploy, _ = host.signer("deploy")
    stranger, _ = host.signer("stranger")
    with sshd(tmp_path / "sshd") as port:
        (tmp_path / "sshd/authorized").write_text(Path(f"{deploy}.pub").read_text())
        url = f"ssh://{getpass.getuser()}@127.0.0.1:{port}{host.folder}/models.git"

        def clone(key: str, **settings: Any) -> GitRepository:
            env = {"DEPLOY": Path(key).read_text(), "HOME": str(tmp_path)}
            return repository(tmp_path, url, env, deploy_key={"from_env": "DEPLOY"}, **settings)

        commit = clone(deploy).fetch()
        log = (tmp_path / "sshd/log").read_text()
        assert len(commit) == 40, log
        with pytest.raises(Unavailable):
            clone(stranger).fetch()
        # The key of the host is remembered: another host at this address is refused.
        (tmp_path / "sshd/host").unlink()
        shutil.copy(stranger, tmp_path / "sshd/host")
        with pytest.raises(Unavailable):
            clone(deploy).fetch()
        known = tmp_path / "known"
        host_key = " ".join(Path(f"{stranger}.pub").read_text().split()[:2])
        known.write_text(f"[127.0.0.1]:{port} {host_key}\n")
        assert clone(deploy, known_hosts=str(known)).fetch() == commit
    assert not list((tmp_path / "git").glob("*/deploy_key"))
