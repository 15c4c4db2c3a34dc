"""diff: formats, exit codes, the plan of a server, and two revisions of a repository."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mullama.cli.manifest.diff import exit_code_of
from mullama.plan.steps import FORMAT, Action, Cause, Cost, Plan, Step, to_tree
from mullama.problems import Location
from mullama.store import lockfile
from mullama.weights.stored import LockEntry, PinnedFile
from tests.cli.conftest import Ran
from tests.cli.tinyserver import Answer, TinyServer

Run = Callable[..., Ran]

MANIFEST = "mullama: v1\nmodels:\n  chat: {from: builtin:tiny, system: Be brief.}\n"


def step(subject: str = "chat", action: Action = Action.UPDATE, **rest: object) -> Step:
    base: dict[str, object] = {"kind": "model", "cause": Cause.DESIRED, "cost": Cost.LIVE, "detail": "next request"}
    return Step(subject=subject, action=action, **(base | rest))  # type: ignore[arg-type]


def plan(*steps: Step) -> Plan:
    return Plan(base="a", desired="b", generation=2, steps=steps)


DESIRED, DRIFT = step(), step(cause=Cause.DRIFT, action=Action.REPAIR)
PAUSE, REMOVE = step(pause=True), step(action=Action.REMOVE)
EVERY = ("desired", "drift", "pause", "remove")


@pytest.mark.parametrize(
    ("steps", "fail_on", "code"),
    [
        ((), EVERY, 0),
        ((DESIRED,), EVERY, 2),
        ((DRIFT,), EVERY, 2),
        ((DRIFT,), ("desired",), 0),
        ((DESIRED,), ("drift",), 0),
        ((DESIRED,), ("pause", "remove"), 0),
        ((DESIRED, PAUSE), ("pause",), 2),
        ((REMOVE,), ("remove",), 2),
        ((REMOVE,), ("pause",), 0),
    ],
)
def test_the_exit_code_counts_only_what_is_asked_for(
    steps: tuple[Step, ...], fail_on: tuple[str, ...], code: int
) -> None:
    assert exit_code_of(steps, fail_on) == code
    assert exit_code_of(steps, fail_on, exit_zero=True) == 0


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "mullama.yaml"
    path.write_text(MANIFEST)
    return path


def test_a_server_is_asked_and_its_plan_shown(run: Run, manifest: Path, tiny: TinyServer) -> None:
    tiny.answers["POST /api/v1/plan"] = Answer(to_tree(plan(DESIRED)))
    ran = run("diff", "--host", tiny.url)
    assert (ran.code, ran.out) == (2, "~ chat  live  next request\n1 changed.\n")
    assert tiny.asked[0].body["manifest"]["models"]["chat"]["system"] == "Be brief."


def test_the_json_form_is_the_published_one(run: Run, manifest: Path, tiny: TinyServer) -> None:
    tiny.answers["POST /api/v1/plan"] = Answer(to_tree(plan(DESIRED)))
    tree = json.loads(run("diff", "--format", "json", "--host", tiny.url).out)
    assert tree["format"] == FORMAT
    assert tree["steps"][0]["line"] == 3, "the place is added from the manifest at hand"


def test_files_that_do_not_exist_are_named_with_their_lines(run: Run, manifest: Path) -> None:
    manifest.write_text(
        "mullama: v1\nmodels:\n  a: ./gone.gguf\n  b:\n    from: builtin:tiny\n"
        "    draft: {from: ./no.gguf}\n    adapters:\n      - from: ./x.gguf\n  c: ./m-00001-of-00002.gguf\n"
    )
    (manifest.parent / "m-00001-of-00002.gguf").write_bytes(b"")

    ran = run("diff")
    alone = run("diff", "--target", "a", "--exit-zero")
    annotated = run("diff", "--format", "github")

    assert (ran.code, "4 added" in ran.out, "download" in ran.out) == (1, False, False)
    folder = manifest.parent
    assert ran.err.splitlines() == [
        f"mullama.yaml:3:6: models.a.from: {folder}/gone.gguf does not exist",
        f"mullama.yaml:6:19: models.b.draft.from: {folder}/no.gguf does not exist",
        f"mullama.yaml:8:15: models.b.adapters[0].from: {folder}/x.gguf does not exist",
        f"mullama.yaml:9:6: models.c.from: {folder}/m-00002-of-00002.gguf is missing"
        " (it is one of the 2 parts of the model)",
        "error: 4 files of the manifest do not exist",
    ]
    assert (alone.code, alone.err) == (1, f"error: {ran.err.splitlines()[0]}\n")
    assert annotated.out.startswith("::error file=mullama.yaml,line=3,col=6,")


def test_annotations_name_the_file_relative_to_the_build(run: Run, manifest: Path, tiny: TinyServer) -> None:
    place = Location(str(manifest), 3, 3)
    tiny.answers["POST /api/v1/plan"] = Answer(to_tree(plan(step(place=place))))
    ran = run("diff", "--format", "github", "--host", tiny.url)
    assert ran.out.startswith("::notice file=mullama.yaml,line=3,col=3,title=")


def test_nothing_to_do_exits_with_0(run: Run, manifest: Path, tiny: TinyServer) -> None:
    tiny.answers["POST /api/v1/plan"] = Answer(to_tree(plan()))
    ran = run("diff", "--host", tiny.url)
    assert (ran.code, ran.out) == (0, "Nothing to do.\n")


@pytest.mark.parametrize(
    "answer",
    [
        Answer({"error": {"kind": "denied", "message": "no key"}}, 401),
        Answer({"format": "mullama.plan/1"}),
        Answer(pieces=(b"<html>",)),
    ],
)
def test_any_error_exits_with_1(run: Run, manifest: Path, tiny: TinyServer, answer: Answer) -> None:
    tiny.answers["POST /api/v1/plan"] = answer
    ran = run("diff", "--host", tiny.url)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: ")


def test_an_unreachable_server_and_a_broken_manifest_exit_with_1(run: Run, manifest: Path) -> None:
    assert run("diff", "--host", "unix:/nonexistent").code == 1
    manifest.write_text("models: [")
    assert run("diff").code == 1


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, "-C", str(folder), *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits: nothing but a note, then the manifest with an include and a template file."""
    (tmp_path / "README").write_text("x")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "README")
    git(tmp_path, "commit", "-q", "-m", "first")
    models = tmp_path / "deploy" / "models"
    models.mkdir(parents=True)
    (tmp_path / "deploy" / "mullama.yaml").write_text(
        "mullama: v1\ninclude: [models/*.yaml]\nmodels:\n  a: {from: builtin:tiny, template: {file: t.jinja}}\n"
    )
    (tmp_path / "deploy" / "t.jinja").write_text("{{ messages[0].content }}")
    (models / "b.yaml").write_text("models: {b: {from: ./b.gguf, context: {size: 1024}}}\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "second")
    return tmp_path / "deploy"


def test_another_ref_is_compared_instead_of_the_file(run: Run, repository: Path) -> None:
    path = str(repository / "mullama.yaml")
    (repository / "models" / "b.yaml").write_text("models: {c: builtin:tiny}\n")
    done = run("diff", "-f", path, "--ref", "HEAD", "--base", "HEAD~1", "--format", "json")
    assert [step["subject"] for step in json.loads(done.out)["steps"] if step["kind"] == "model"] == ["a", "b"]
    missing = run("diff", "-f", path, "--ref", "HEAD~1")
    assert missing.code == 1
    assert "is not in the repository at HEAD~1" in missing.err


def test_files_that_cannot_be_used_are_named_with_the_reason_and_not_pulled(run: Run, manifest: Path) -> None:
    folder = manifest.parent
    for name in ("two/a.gguf", "two/b.gguf", "junk.gguf", "empty/notes.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"junk")
    manifest.write_text("mullama: v1\nmodels:\n  a: ./junk.gguf\n  b: ./two\n  c: ./empty\n  d: ./gone.gguf\n")

    ran = run("diff")
    alone = run("apply", "--yes", "--target", "a")

    assert (ran.code, "pull" in ran.out, "download" in ran.out) == (1, False, False)
    assert [line.partition(" (")[0] for line in ran.err.splitlines()] == [
        f"mullama.yaml:3:6: models.a.from: {folder}/junk.gguf: the file begins with b'junk', not with b'GGUF'",
        f"mullama.yaml:4:6: models.b.from: {folder}/two has 2 GGUF files",
        f"mullama.yaml:5:6: models.c.from: {folder}/empty holds no file that can be run",
        f"mullama.yaml:6:6: models.d.from: {folder}/gone.gguf does not exist",
        "error: 4 files of the manifest cannot be used",
    ]
    assert alone.code == 4


def test_targets_of_a_commit_are_compared_alone(run: Run, repository: Path) -> None:
    path = repository / "mullama.yaml"
    path.write_text(path.read_text().replace("models:", "routes: {r: other}\nmodels:\n  other: builtin:tiny", 1))

    arguments = ("diff", "-f", str(path), "--base", "HEAD")
    whole, alone = (run(*arguments, *more) for more in ((), ("--target", "other")))

    assert [line.split()[1] for line in whole.out.splitlines()[:2]] == ["other", "routes"]
    assert alone.code == 2
    assert [line.split()[:2] for line in alone.out.splitlines() if line[0] in "+~"] == [["+", "other"]]
    assert "warning: only other and what they need are planned" in alone.out


def test_an_unchanged_tree_differs_in_nothing_from_its_commit(run: Run, repository: Path) -> None:
    ran = run("diff", "-f", "deploy/mullama.yaml", "--base", "HEAD")
    assert (ran.code, ran.out, ran.err) == (0, "Nothing to do.\n", "")


def test_edits_in_includes_and_templates_are_compared_with_the_commit(run: Run, repository: Path) -> None:
    (repository / "models" / "b.yaml").write_text("models: {b: {from: ./b.gguf, context: {size: 2048}}}\n")
    (repository / "t.jinja").write_text("{{ messages[-1].content }}")
    ran = run("diff", "-f", "deploy/mullama.yaml", "--base", "HEAD", "--format", "json")
    steps = {s["subject"]: s for s in json.loads(ran.out)["steps"]}
    assert ran.code == 2
    assert [c["path"] for c in steps["b"]["changes"]] == ["context.size"]
    assert steps["b"]["file"].endswith("models/b.yaml")
    assert steps["a"]["cost"] == "live"


def test_sizes_and_memory_come_from_the_lock_file(run: Run, repository: Path) -> None:
    source = "hf:org/repo:Q8_0"
    pin = PinnedFile(name="w.gguf", size=5 * 2**20, digest="sha256:" + "0" * 64, role="weights")
    entry = LockEntry(source=source, resolved=source, revision="0" * 40, files=(pin,))
    (repository / "mullama.lock").write_text(lockfile.render({source: entry}))
    (repository / "mullama.yaml").write_text(
        f"mullama: v1\nmodels: {{a: builtin:tiny, new: '{source}', other: 'hf:org/other:Q8_0'}}\n"
    )
    ran = run("diff", "-f", "deploy/mullama.yaml", "--base", "HEAD", "--format", "json")
    steps = {s["subject"]: s for s in json.loads(ran.out)["steps"]}
    assert steps["new"]["bytes_download"] == 5 * 2**20
    assert steps["other"]["bytes_download"] is None


def test_what_is_never_fetched_is_no_download(run: Run, repository: Path) -> None:
    ran = run("diff", "-f", "deploy/mullama.yaml", "--base", "HEAD~1")
    assert ran.out.endswith("2 added.\n")


def test_where_there_was_no_manifest_everything_is_new(run: Run, repository: Path) -> None:
    ran = run("diff", "-f", "deploy/mullama.yaml", "--base", "HEAD~1", "--format", "json")
    assert ran.code == 2
    assert {s["action"] for s in json.loads(ran.out)["steps"] if s["kind"] == "model"} == {"add"}


@pytest.mark.parametrize("reference", ["nowhere", "--help", "-x", "HEAD~99", ""])
def test_an_unknown_revision_is_an_error(run: Run, repository: Path, reference: str) -> None:
    ran = run("diff", "-f", "deploy/mullama.yaml", f"--base={reference}")
    assert (ran.code, ran.out) == (1, "")
    assert f"git has no commit {reference!r}" in ran.err


def test_a_base_outside_of_a_repository_is_an_error(run: Run, manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(manifest.parent.parent))
    ran = run("diff", "--base", "HEAD")
    assert ran.code == 1
    assert "is not in a git repository" in ran.err


POLICY = "policy: v1\nkeep: [chat]\nsources: ['builtin:*']\n"


@pytest.fixture
def policy(tmp_path: Path) -> str:
    (tmp_path / "policy.yaml").write_text(POLICY)
    return "policy.yaml"


def test_a_broken_rule_exits_with_9_in_every_format(run: Run, manifest: Path, tiny: TinyServer, policy: str) -> None:
    tiny.answers["POST /api/v1/plan"] = Answer(to_tree(plan(REMOVE)))
    asked = ("diff", "--policy", policy, "--host", tiny.url, "--exit-zero")

    text = run(*asked)
    assert (text.code, text.out.splitlines()[-1]) == (9, "policy keep: chat is removed")
    tree = json.loads(run(*asked, "--format", "json").out)
    assert tree["policy"] == [{"rule": "keep", "model": "chat", "message": "chat is removed"}]
    assert "- keep: chat is removed" in run(*asked, "--format", "markdown").out.splitlines()
    annotation = run(*asked, "--format", "github").out.splitlines()[0]
    assert annotation == "::error file=mullama.yaml,line=3,col=3,title=mullama%3A policy keep::chat is removed"
    log = json.loads(run(*asked, "--format", "sarif").out)
    assert [result["level"] for result in log["runs"][0]["results"]] == ["error", "warning"]
    suite = ElementTree.fromstring(run(*asked, "--format", "junit").out)
    assert (suite.attrib["tests"], suite.attrib["failures"]) == ("3", "1"), "keep, the step, and the kept rule"


def test_a_plan_that_keeps_the_policy_exits_as_before(run: Run, manifest: Path, tiny: TinyServer, policy: str) -> None:
    tiny.answers["POST /api/v1/plan"] = Answer(to_tree(plan(DESIRED)))
    ran = run("diff", "--policy", policy, "--host", tiny.url)
    assert (ran.code, ran.out) == (2, "~ chat  live  next request\n1 changed.\n")
    tree = json.loads(run("diff", "--policy", policy, "--host", tiny.url, "--format", "json").out)
    assert tree["policy"] == []


def test_a_mistake_in_the_policy_has_its_place(run: Run, manifest: Path, tiny: TinyServer, policy: str) -> None:
    tiny.answers["POST /api/v1/plan"] = Answer(to_tree(plan(DESIRED)))
    Path(policy).write_text("policy: v1\nkep: [chat]\n")
    ran = run("diff", "--policy", policy, "--host", tiny.url)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("policy.yaml:2:1: kep: no such field (did you mean keep?)")


def test_a_policy_needs_no_server_with_a_base(run: Run, repository: Path) -> None:
    (repository / "policy.yaml").write_text("policy: v1\npinned: true\n")
    (repository / "mullama.yaml").write_text("mullama: v1\nmodels: {a: builtin:tiny, new: 'hf:org/repo:Q8_0'}\n")
    ran = run("diff", "-f", "deploy/mullama.yaml", "--base", "HEAD", "--policy", "deploy/policy.yaml")
    assert ran.code == 9
    assert ran.out.endswith("policy pinned: hf:org/repo:Q8_0 has no digest: mullama lock writes it\n")


def test_a_diff_that_only_refreshes_shows_the_drift_from_the_applied_revision(
    run: Run, manifest: Path, tiny: TinyServer
) -> None:
    tiny.answers["GET /api/v1/drift"] = Answer(to_tree(plan(DRIFT)))
    ran = run("diff", "--refresh-only", "--host", tiny.url)
    assert (ran.code, ran.out) == (2, "! chat  drift  next request\n1 drift.\n")
    assert [(asked.method, asked.path) for asked in tiny.asked] == [("GET", "/api/v1/drift")]
    assert run("diff", "--refresh-only", "--fail-on", "desired", "--host", tiny.url).code == 0
    assert run("diff", "--refresh-only").out == "Nothing to do.\n", "nothing is applied here"
    manifest.write_text(f"{manifest.read_text()}moved: [{{from: old, to: gone}}]\n")
    assert run("diff", "--refresh-only").err.count("warning: ") == 1, "the manifest is read once"
    for option in (("--target", "chat"), ("--base", "HEAD"), ("--out", "p.json")):
        refused = run("diff", "--refresh-only", *option)
        assert (refused.code, refused.err.startswith("error: --refresh-only compares the applied revision")) == (
            1,
            True,
        )


def test_an_apply_that_only_refreshes_sends_no_manifest(run: Run, manifest: Path, tiny: TinyServer) -> None:
    tiny.answers["POST /api/v1/refresh"] = Answer(to_tree(plan(DRIFT)))
    ran = run("apply", "--refresh-only", "--host", tiny.url)
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "the files are recorded; no model is changed")
    assert [(asked.path, asked.body) for asked in tiny.asked] == [("/api/v1/refresh", {})]
    tree = json.loads(run("apply", "--refresh-only", "--json", "--host", tiny.url).out)
    assert tree["drift"][0]["subject"] == "chat"
    assert run("apply", "--refresh-only", "--locked", "--host", tiny.url).code == 4
    assert run("apply", "--refresh-only").code == 11
