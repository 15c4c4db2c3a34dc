"""A git repository on loopback over HTTP, as a git host serves it, and the commits of its users."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_PERSON = {f"GIT_{role}_{part}": value for role in ("AUTHOR", "COMMITTER")
           for part, value in (("NAME", "ann"), ("EMAIL", "ann@example.org"))}  # fmt: skip


class GitHost:
    """A bare repository with a branch `main`, and the folder in which its commits are made."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.work = folder, folder / "work"
        self.token: str | None = None
        """The token that requests need."""
        self.url = ""
        self.requests = 0
        self.git("init", "--quiet", "--bare", "--initial-branch=main", str(folder / "models.git"), where=folder)
        self.git("init", "--quiet", "--initial-branch=main", str(self.work), where=folder)

    def git(self, *arguments: str, where: Path | None = None) -> str:
        keep = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
        env = {**keep, **_PERSON, "HOME": str(self.folder), "GIT_CONFIG_GLOBAL": os.devnull}
        done = subprocess.run(
            ["git", *arguments],
            cwd=where or self.work,
            env=env,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, files: Mapping[str, str | None], *, key: str | None = None, amend: bool = False) -> str:
        """Write files (None removes one), commit and push; return the hash. key: of the signature."""
        for name, text in files.items():
            path = self.work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True) if text is None else path.write_text(text)
        self.git("add", "--all")
        signing = ("-c", "gpg.format=ssh", "-c", f"user.signingkey={key}") if key else ()
        flags = (*(["-S"] if key else []), *(["--amend"] if amend else []))
        self.git(*signing, "commit", "--quiet", "--allow-empty", "-m", "change", *flags)
        self.git("push", "--quiet", "--force", str(self.folder / "models.git"), "HEAD:main")
        self.git("update-server-info", where=self.folder / "models.git")
        return self.git("rev-parse", "HEAD")

    def signer(self, name: str) -> tuple[str, str]:
        """Make a key pair; return the path of the private key and the line of the signer."""
        path = self.folder / f"{name}.key"
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)]
        subprocess.run(command, check=True, capture_output=True, timeout=30)
        return str(path), f"{name}@example.org {Path(f'{path}.pub').read_text()}"


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, host: GitHost, *arguments: Any, **more: Any) -> None:
        self._host = host
        super().__init__(*arguments, directory=str(host.folder), **more)

    def do_GET(self) -> None:
        self._host.requests += 1
        wanted = base64.b64encode(f"x-access-token:{self._host.token}".encode()).decode()
        if self._host.token is not None and self.headers.get("authorization") != f"Basic {wanted}":
            self.send_error(403)
        else:
            super().do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def git_host(folder: Path) -> Iterator[GitHost]:
    """A host that answers on loopback."""
    folder.mkdir(exist_ok=True)
    host = GitHost(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, host))
    host.url = f"http://127.0.0.1:{server.server_address[1]}/models.git"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield host
    finally:
        server.shutdown()
        thread.join(30)
        server.server_close()
