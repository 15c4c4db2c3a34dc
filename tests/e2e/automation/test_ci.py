"""The scripts of the composite action, of the GitLab template and of the pre-commit hooks, run for real.

`gh` and `curl` keep comments in a file. Everything else is what a runner has: bash, git, jq and mullama.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.stack import COMMAND, Stack

ROOT = Path(__file__).parents[3]
CI = ROOT / "examples/ci"
ACTION: dict[str, Any] = yaml.safe_load((CI / "action.yml").read_text())
GITLAB: dict[str, Any] = yaml.safe_load((CI / "gitlab-ci.yml").read_text())
HOOKS: list[dict[str, Any]] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
BEFORE = {"mullama": "v1", "models": {"chat": {"from": "builtin:tiny"}}}
AFTER = {"mullama": "v1", "models": {"other": {"from": "builtin:tiny", "system": "New."}}}
BROKEN = {"mullama": "v1", "models": {"chat": {"from": "builtin:tiny", "sistem": "x"}}}
POLICY = {"policy": "v1", "keep": ["chat"]}

# Keeps comments as files named by their ids. Its arguments are those of gh api, gh pr comment, and of curl for notes.
_HOST = """#!{python}
import json, pathlib, sys
folder, words = pathlib.Path({comments!r}), sys.argv[1:]
known = sorted(folder.glob("*"), key=lambda path: int(path.name))
body = next((word.partition("@")[2] for word in words if word.startswith("body@") or word.startswith("body=@")), "")
body = body or (words[words.index("--body-file") + 1] if "--body-file" in words else "")
if not body:
    found = [{{"id": int(path.name), "body": path.read_text()}} for path in known]
    if "--jq" in words:
        import os
        print(*(c["id"] for c in found if os.environ["MARKER"] in c["body"]), sep="\\n")
    else:
        print(json.dumps(found))
else:
    url = next((word for word in words if "/" in word and "plan.md" not in word and "json" not in word), "")
    tail = url.rpartition("/")[2]
    name = tail if tail.isdigit() and tail in [path.name for path in known] else str(len(known) + 1)
    (folder / name).write_text(pathlib.Path(body).read_text())
"""


@pytest.fixture
def repository(empty_stack: Stack) -> Stack:
    """A repository whose branch `main` has one model, and a working tree in which it is replaced by another one."""
    stack = empty_stack
    git(stack, "init", "--quiet", "--initial-branch=main")
    save(stack, BEFORE)
    (stack.home / "policy.yaml").write_text(json.dumps(POLICY))
    git(stack, "add", "mullama.yaml", "policy.yaml")
    git(stack, "commit", "--quiet", "-m", "one")
    git(stack, "branch", "origin/main")
    save(stack, AFTER)
    commands = stack.home / "bin"
    commands.mkdir()
    (stack.home / "comments").mkdir()
    (commands / "mullama").write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
    for name in ("gh", "curl"):
        (commands / name).write_text(_HOST.format(python=sys.executable, comments=str(stack.home / "comments")))
    for command in commands.iterdir():
        command.chmod(0o700)
    return stack


def save(stack: Stack, tree: dict[str, Any]) -> None:
    stack.manifest.write_text(json.dumps(tree, indent=1))


def git(stack: Stack, *arguments: str) -> None:
    user = ("-c", "user.name=ann", "-c", "user.email=ann@example.org")
    subprocess.run(["git", *user, *arguments], cwd=stack.home, check=True, capture_output=True, timeout=60)


def shell(stack: Stack, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a runner does."""
    env = stack.env | variables
    env["PATH"] = f"{stack.home / 'bin'}:{env['PATH']}"
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=stack.home, env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def comments(stack: Stack) -> list[str]:
    return [path.read_text() for path in sorted((stack.home / "comments").iterdir())]


def step(stack: Stack, name: str, **inputs: str) -> subprocess.CompletedProcess[str]:
    """Run one step of the action, with the values that the runner puts in place of its expressions."""
    values = {key: str(one.get("default", "")) for key, one in ACTION["inputs"].items()} | {"base": "main"} | inputs
    (found,) = [one for one in ACTION["runs"]["steps"] if one.get("name") == name]

    def value(match: re.Match[str]) -> str:
        expression = match[1].strip()
        return values[expression.removeprefix("inputs.")] if expression.startswith("inputs.") else "7"

    env = {key: re.sub(r"\$\{\{(.*?)\}\}", value, str(text)) for key, text in found.get("env", {}).items()}
    return shell(stack, found["run"], GITHUB_REPOSITORY="acme/models", **env)


def test_the_action_keeps_one_comment_and_refuses_by_the_policy(repository: Stack) -> None:
    name = "Keep one comment with the plan"
    for count, tree in enumerate((AFTER, BEFORE | {"routes": {"fast": "chat"}}, AFTER)):
        save(repository, tree)
        done = step(repository, name, policy="policy.yaml")
        assert done.returncode == 0, done.stderr
        (comment,) = comments(repository)
        assert ("other" in comment) is (count != 1), "the comment is the newest plan"
    (repository.home / "comments/2").write_text("of a person")
    assert step(repository, name).returncode == 0
    assert comments(repository)[1:] == ["of a person"]

    refused = step(repository, "Compare the plan with the policy", policy="policy.yaml")
    assert refused.returncode == 9
    assert "chat" in refused.stdout + refused.stderr
    assert step(repository, "Refuse the kinds of changes that are listed", **{"fail-on": "remove"}).returncode == 2
    save(repository, BEFORE)
    assert step(repository, "Compare the plan with the policy", policy="policy.yaml").returncode == 0


def test_the_action_annotates_mistakes_and_changes_and_writes_sarif(repository: Stack) -> None:
    assert step(repository, "Report every mistake at its line").returncode == 0
    annotated = step(repository, "Annotate the changed lines")
    assert annotated.returncode == 0
    assert "::" in annotated.stdout
    assert "file=mullama.yaml" in annotated.stdout
    assert step(repository, "Write the findings as SARIF", sarif="found.sarif").returncode == 0
    sarif = json.loads((repository.home / "found.sarif").read_text())
    (run,) = sarif["runs"]
    found = [place["physicalLocation"] for result in run["results"] for place in result.get("locations", ())]
    assert {place["artifactLocation"]["uri"] for place in found} == {"mullama.yaml"}

    save(repository, BROKEN)
    refused = step(repository, "Report every mistake at its line")
    assert refused.returncode != 0
    assert "::error file=mullama.yaml,line=6" in refused.stdout


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_the_jobs_of_gitlab_keep_one_note_and_fail_by_the_policy(repository: Stack) -> None:
    script = "\n".join(line for line in GITLAB["mullama diff"]["script"] if not line.startswith("git fetch"))
    variables = {"CI_API_V4_URL": "https://host/api/v4", "CI_PROJECT_ID": "1", "CI_MERGE_REQUEST_IID": "2"}
    (repository.home / ".git/FETCH_HEAD").write_bytes((repository.home / ".git/refs/heads/main").read_bytes())
    for code, tree in ((9, AFTER), (0, BEFORE | {"routes": {"fast": "chat"}})):
        save(repository, tree)
        done = shell(repository, script, MULLAMA_GITLAB_TOKEN="t", **variables)
        assert done.returncode == code, done.stderr
    (note,) = comments(repository)
    assert "fast" in note


def test_the_reports_of_gitlab_are_junit(repository: Stack) -> None:
    (script,) = GITLAB["mullama validate"]["script"]
    assert shell(repository, script).returncode == 0
    assert ET.parse(repository.home / "mullama.xml").getroot().tag == "testsuites"
    save(repository, BROKEN)
    assert shell(repository, script).returncode != 0
    failures = [*ET.parse(repository.home / "mullama.xml").getroot().iter("failure")]
    assert failures[0].text == "mullama.yaml:6:4: no such field (did you mean system?)"
    save(repository, AFTER)
    planned = repository.run(
        "diff", "-f", repository.name, "--base", "main", "--format", "junit", "--exit-zero", code=None
    )
    assert ET.fromstring(planned.stdout).tag == "testsuites"


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: str(hook["id"]))
def test_the_hooks_accept_a_sound_manifest_and_refuse_a_broken_one(repository: Stack, hook: dict[str, Any]) -> None:
    """pre-commit runs the entry with the names of the changed files, unless the hook takes none."""
    command = hook["entry"] + (" mullama.yaml" if hook.get("pass_filenames", True) else "")
    save(repository, BEFORE)
    done = shell(repository, command)
    assert done.returncode == 0, done.stdout + done.stderr
    save(repository, BROKEN)
    assert shell(repository, command).returncode != 0
