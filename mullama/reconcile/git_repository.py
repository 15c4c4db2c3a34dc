"""One clone of a repository in the state folder, by the git command, and the checkout of one commit of it.

The clone is bare, and commits are exported: no hook, filter or setting of the repository is used. Blocks: call it in a
thread.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import os
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from mullama.errors import Invalid, NotFound, Refused, Unavailable, masked
from mullama.manifest.spec import GitSync
from mullama.reconcile.secrets import read_secret

_SECONDS = 120  # of one command
_MOST_BYTES = 64 * 1024**2  # of one checkout
_FETCHED = "refs/mullama/fetched"
# Settings of the user and of the system could run programs or send requests elsewhere.
_SAFE = (
    *("-c", "core.hooksPath=/dev/null", "-c", "protocol.allow=never", "-c", "protocol.https.allow=always"),
    *("-c", "protocol.http.allow=always", "-c", "protocol.ssh.allow=always", "-c", "protocol.git.allow=always"),
    *("-c", "http.followRedirects=false", "-c", "credential.helper=", "-c", "gc.auto=0"),
)


class UnsignedCommit(Refused):
    """The commit has no signature of an allowed signer."""


class HistoryRewritten(Refused):
    """The commit does not follow the one before: the branch was force-pushed."""


class GitRepository:
    """The clone and the checkouts of one ref of one repository.

    `current` is a symbolic link to the checkout in force; it is replaced atomically, so paths through it stay the same.
    """

    def __init__(self, root: Path, settings: GitSync, env: Mapping[str, str]) -> None:
        name = hashlib.sha256(f"{settings.url}\n{settings.ref}".encode()).hexdigest()[:12]
        self._root, self._settings, self._env = root, settings, env
        self._folder = root / name
        self._bare, self._trees = self._folder / "repository.git", self._folder / "trees"
        self.current = self._folder / "current"

    @property
    def manifest(self) -> str:
        """The path of the manifest in the checkout in force."""
        return str(self.current / self._settings.path)

    @property
    def commit(self) -> str | None:
        """The commit that is checked out; None before the first."""
        return commit_of(str(self.current))

    def fetch(self) -> str:
        """Fetch the ref; return the full hash of its commit. Raises `Unavailable` if the repository is not reached."""
        self._trees.mkdir(parents=True, exist_ok=True, mode=0o700)
        for other in self._root.iterdir():  # of other settings
            if other != self._folder:
                shutil.rmtree(other, ignore_errors=True)
        if not (self._bare / "HEAD").exists():
            self._git("init", "--bare", "--quiet", str(self._bare), bare=False)
        with self._credentials() as extra:
            self._git(
                *("fetch", "--quiet", "--no-tags", "--force", "--end-of-options", self._settings.url),
                f"+{self._settings.ref}:{_FETCHED}",
                extra=extra,
            )
        return self._git("rev-parse", "--verify", "--end-of-options", f"{_FETCHED}^{{commit}}").decode().strip()

    def check(self, commit: str, *, after: str | None) -> None:
        """Raise unless the commit may be applied.

        after: the commit before it; None accepts any history. Raises `UnsignedCommit`, `HistoryRewritten`, and
        `NotFound` for a commit without the manifest.
        """
        if self._settings.verify is not None:
            self._verify(commit, self._settings.verify.ssh_signers)
        if after is not None and not self._succeeds("merge-base", "--is-ancestor", after, commit):
            raise HistoryRewritten(
                f"{self._settings.ref} was force-pushed: commit {commit[:12]} does not follow {after[:12]}",
                hint="mullama reload applies it",
            )
        if not self._succeeds("cat-file", "-e", f"{commit}:{self._settings.path}"):
            raise NotFound(
                f"commit {commit[:12]} has no file {self._settings.path}", hint="sync.git.path names the manifest"
            )

    def _verify(self, commit: str, signers: str) -> None:
        if not os.access(signers, os.R_OK):
            raise NotFound(f"sync.git.verify.ssh_signers: {signers} cannot be read", hint="name the file of signers")
        settings = ("-c", "gpg.format=ssh", "-c", f"gpg.ssh.allowedSignersFile={signers}")
        if not self._succeeds(*settings, "verify-commit", commit):
            raise UnsignedCommit(
                f"commit {commit[:12]} is not signed by a signer of {signers}",
                hint="sign it, or add its signer to the file",
            )

    def check_out(self, commit: str) -> None:
        """Put the files of the commit in force, at once."""
        tree = self._export(commit)
        link = self._folder / f"current.{os.getpid()}"
        link.unlink(missing_ok=True)
        link.symlink_to(tree)
        link.replace(self.current)
        for old in self._trees.iterdir():
            if old.name.partition(".")[0] != commit:
                shutil.rmtree(old) if old.is_dir() else old.unlink()

    def restore(self) -> bool:
        """Write the files of the checkout again if they are not those of the commit; return True if they were not."""
        commit = self.commit
        if commit is None:
            return False
        seal = self._trees / f"{commit}.sha256"
        if seal.exists() and seal.read_text() == _digest(self._trees / commit):
            return False
        shutil.rmtree(self._trees / commit)
        self._export(commit)
        return True

    def _export(self, commit: str) -> Path:
        tree, seal = self._trees / commit, self._trees / f"{commit}.sha256"
        if tree.exists() and seal.exists() and seal.read_text() == _digest(tree):
            return tree
        listed = self._git("ls-tree", "-r", "-l", "-z", commit).split(b"\0")
        sizes = (line.split()[3] for line in listed if line)
        if sum(int(size) for size in sizes if size != b"-") > _MOST_BYTES:
            raise Invalid(
                f"the files of commit {commit[:12]} have more than {_MOST_BYTES // 1024**2} MiB",
                hint="keep the manifest in a repository without weights",
            )
        new = self._trees / f"{commit}.new"
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(tree, ignore_errors=True)
        with tarfile.open(fileobj=io.BytesIO(self._git("archive", "--format=tar", commit))) as archive:
            try:
                archive.extractall(new, filter="data")
            except tarfile.FilterError as error:
                message = f"commit {commit[:12]} has a link that leaves its folder: {error.tarinfo.name}"
                raise Invalid(message, hint="remove the link") from error
        seal.write_text(_digest(new))
        new.rename(tree)
        return tree

    def _succeeds(self, *arguments: str) -> bool:
        try:
            self._git(*arguments)
        except Unavailable:
            return False
        return True

    def _git(self, *arguments: str, extra: Mapping[str, str] | None = None, bare: bool = True) -> bytes:
        """Return the output of a git command; raise `Unavailable` with its last line of errors if it fails."""
        where = (f"--git-dir={self._bare}",) if bare else ()
        try:
            done = subprocess.run(
                ["git", *_SAFE, *where, *arguments], env=self._variables(extra or {}), stdin=subprocess.DEVNULL,
                capture_output=True, timeout=_SECONDS, check=False,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise NotFound("git is not installed", hint="sync.git needs the git command") from error
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"{self._settings.url} did not answer within {_SECONDS} s") from error
        if done.returncode != 0:
            reason = masked(reason_of(done.stderr.decode("utf-8", "replace"))) or f"exit code {done.returncode}"
            raise Unavailable(f"{self._settings.url}: {reason}", hint="sync.git has the url, the ref and the secrets")
        return done.stdout

    def _variables(self, extra: Mapping[str, str]) -> dict[str, str]:
        kept = {name: self._env[name] for name in ("PATH", "HOME", "LANG", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE")
                if name in self._env}  # fmt: skip
        if ca := kept.pop("SSL_CERT_FILE", None):
            kept["GIT_SSL_CAINFO"] = ca
        quiet = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_TERMINAL_PROMPT": "0"}
        return {**kept, **quiet, "LC_ALL": "C", **extra}

    @contextlib.contextmanager
    def _credentials(self) -> Iterator[dict[str, str]]:
        """Yield the variables with which git sends the secrets; no command line has them."""
        settings = self._settings
        extra: dict[str, str] = {}
        key_file = self._folder / "deploy_key"
        try:
            if settings.token is not None and (token := read_secret(settings.token, "sync.git.token", self._env)):
                parts = urlsplit(settings.url)
                header = base64.b64encode(f"x-access-token:{token}".encode()).decode()
                extra = {
                    "GIT_CONFIG_COUNT": "1",
                    "GIT_CONFIG_KEY_0": f"http.{parts.scheme}://{parts.netloc}/.extraHeader",
                    "GIT_CONFIG_VALUE_0": f"Authorization: Basic {header}",
                }
            hosts, trust = settings.known_hosts, "yes"
            if hosts is None:
                hosts, trust = str(self._folder / "known_hosts"), "accept-new"
            command = ["ssh", "-o", "BatchMode=yes", "-o", f"StrictHostKeyChecking={trust}"]
            command += ["-o", f"UserKnownHostsFile={hosts}", "-o", f"GlobalKnownHostsFile={os.devnull}"]
            if settings.deploy_key is not None:
                key = read_secret(settings.deploy_key, "sync.git.deploy_key", self._env)
                with open(os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                    file.write(f"{key}\n")
                # The identities of a configuration file would be offered besides the key, and its hosts be replaced.
                command += ["-F", os.devnull, "-i", str(key_file), "-o", "IdentitiesOnly=yes"]
            extra["GIT_SSH_COMMAND"] = shlex.join(command)
            yield extra
        finally:
            key_file.unlink(missing_ok=True)


def reason_of(errors: str) -> str:
    """Return the line of git's errors that has the reason, "" without one.

    The advice after git's own line says nothing about this failure. Where git could not read, ssh has the reason: its
    last line stands before that of git.
    """
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    own = next((index for index, line in enumerate(lines) if line.startswith("fatal: ")), len(lines) - 1)
    if own > 0 and "Could not read from remote repository" in lines[own]:
        own -= 1
    return lines[own].removeprefix("fatal: ") if lines else ""


def commit_of(link: str) -> str | None:
    """Return the commit of a checkout by the link to it; None without one."""
    try:
        return Path(os.readlink(link)).name
    except OSError:
        return None


def _digest(tree: Path) -> str:
    """Return the SHA-256 of all names and contents below a folder."""
    found = hashlib.sha256()
    for path in sorted(tree.rglob("*")):
        content = b"" if path.is_dir() else os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
        found.update(f"{path.relative_to(tree)}\0{len(content)}\0".encode("utf-8", "surrogateescape"))
        found.update(content)
    return found.hexdigest()
