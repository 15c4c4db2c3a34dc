"""The block of the updates from a changed file or git repository."""

from typing import Annotated

from pydantic import AfterValidator, Field

from mullama.manifest.spec.readers import check_git_path, check_git_ref, check_git_url
from mullama.manifest.spec.server import SecretRef
from mullama.manifest.spec.values import Block, Duration, Flag, Text


class GitVerify(Block):
    """Check of signatures."""

    ssh_signers: Text = Field(examples=["./signers"])
    """File of allowed signers in the form of OpenSSH: a name and a public key in each line. A commit without a
    signature of one of them is not applied."""


class GitWebhook(Block):
    """Requests of the git host that start a check at once."""

    secret: SecretRef = Field(examples=[{"from_env": "HOOK_SECRET"}])
    """Secret of the requests: it signs them (GitHub, Gitea, Forgejo) or is their token (GitLab)."""


class GitSync(Block):
    """Source of the manifest in a git repository."""

    url: Annotated[str, AfterValidator(check_git_url)] = Field(
        examples=["https://git.example.org/ops/models.git", "git@git.example.org:ops/models.git"]
    )
    """URL of the repository: `https://…`, `ssh://…` or `USER@HOST:PATH`."""
    ref: Annotated[str, AfterValidator(check_git_ref)] = Field(default="main", examples=["main"])
    """Branch, tag or commit."""
    path: Annotated[str, AfterValidator(check_git_path)] = Field(default="mullama.yaml", examples=["mullama.yaml"])
    """Path of the manifest in the repository. Its lock file is beside it."""
    interval: Duration = Field(default=60.0, gt=0, examples=["1m"])
    """Time between two checks, at least a second; after failures it doubles, up to half an hour."""
    token: SecretRef | None = Field(default=None, examples=[{"from_env": "GIT_TOKEN"}])
    """Access token for `https://…`."""
    deploy_key: SecretRef | None = Field(default=None, examples=[{"from_file": "./secrets/deploy"}])
    """Private key for SSH: no other key is offered, and no configuration of ssh is read. Without it, ssh uses those of
    the server's user."""
    known_hosts: Text | None = Field(default=None, examples=["./known_hosts"])
    """File with the keys of the git host, as OpenSSH writes it; without it, the first key that the host shows is
    trusted from then on."""
    verify: GitVerify | None = Field(default=None, examples=[{"ssh_signers": "./signers"}])
    """Check of signatures; without it, unsigned commits are applied."""
    webhook: GitWebhook | None = None
    """Requests to `/api/v1/sync` that start a check at once; without it, they are refused."""


class Sync(Block):
    """Updates from a changed manifest."""

    watch: Flag = True
    """Apply the manifest when its file changes."""
    git: GitSync | None = None
    """Source of the manifest in a git repository."""
