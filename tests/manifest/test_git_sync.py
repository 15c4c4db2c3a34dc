"""`sync.git` in the manifest: addresses, refs, paths and secrets are checked where they are written."""

from __future__ import annotations

import pytest

from tests.manifest.builders import problems, read

GOOD = [
    "url: https://git.example.org/ops/models.git",
    "url: ssh://git@git.example.org:2222/ops/models.git",
    "url: 'git@git.example.org:ops/models.git'",
    "url: http://127.0.0.1:8000/models.git",
    "url: https://git.example.org/x, ref: release/1.2, path: teams/a/mullama.yaml, interval: 5m",
    "url: 'git@git.example.org:x.git', deploy_key: {from_env: K}, known_hosts: ./known_hosts",
    "url: https://git.example.org/x, webhook: {secret: {from_env: A}}, token: {from_file: ./t}",
]


@pytest.mark.parametrize("text", GOOD)
def test_repositories_are_accepted(text: str) -> None:
    assert problems(f"sync: {{git: {{{text}}}}}") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("url: /srv/models.git", "sync.git.url: a folder of this machine is not a source of sync.git"),
        ("url: 'file:///srv/models.git'", "sync.git.url: a folder of this machine is not a source of sync.git"),
        ("url: ./models", "sync.git.url: a folder of this machine"),
        ("url: http://git.example.org/x", "sync.git.url: http:// is not encrypted"),
        ("url: git://git.example.org/x", "sync.git.url: git:// is not encrypted"),
        ("url: 'ext::sh -c touch'", "sync.git.url: 'ext::sh -c touch' is not the address of a git repository"),
        ("url: --upload-pack=x", "sync.git.url: "),
        ("url: ssh://-oProxyCommand=x/y", "sync.git.url: "),
        ("url: https://u:p@git.example.org/x", "sync.git.url: the address of a git repository has no secret"),
        ("url: https://ghp_x@git.example.org/x", "sync.git.url: the address of a git repository has no secret"),
        ("url: https://g.example.org/x, ref: --all", "sync.git.ref: '--all' is not a branch, tag or commit"),
        ("url: https://g.example.org/x, ref: a..b", "sync.git.ref: 'a..b' is not a branch, tag or commit"),
        ("url: https://g.example.org/x, path: ../m.yaml", "sync.git.path: '../m.yaml' is not a path in the repository"),
        ("url: https://g.example.org/x, path: /m.yaml", "sync.git.path: '/m.yaml' is not a path in the repository"),
        ("url: https://g.example.org/x, interval: 0s", "sync.git.interval: "),
        (
            "url: https://g.example.org/x, deploy_key: {from_env: K}",
            "sync.git.deploy_key: is for SSH, and sync.git.url is not (use token, or ssh://HOST/PATH.git)",
        ),
        ("url: https://g.example.org/x, known_hosts: ./k", "sync.git.known_hosts: is for SSH"),
        (
            "url: 'git@g.example.org:x.git', token: {from_env: T}",
            "sync.git.token: is for HTTPS, and sync.git.url is not (use deploy_key, or https://HOST/PATH.git)",
        ),
        ("url: https://g.example.org/x, token: {}", "sync.git.token: expected one of from_env and from_file"),
    ],
)
def test_other_addresses_are_refused_with_their_place(text: str, message: str) -> None:
    found = problems(f"sync: {{git: {{{text}}}}}")
    assert [line for line in found if line.partition(": ")[2].startswith(message)], found


def test_paths_are_those_beside_the_manifest() -> None:
    git = read("sync: {git: {url: https://g.example.org/x, verify: {ssh_signers: ./signers}}}").manifest.sync.git
    assert git is not None
    assert git.verify is not None
    assert git.verify.ssh_signers.startswith("/")
