"""Loads a policy file, with the limits and the messages of a manifest."""

from __future__ import annotations

from mullama.errors import ManifestError, NotFound
from mullama.manifest.diagnostics import Diagnostics
from mullama.manifest.key_tree import KeyTree, to_plain, trim
from mullama.manifest.load.document import DocumentBudget, read_document
from mullama.manifest.load.files import Disk
from mullama.manifest.nodes import Fields, walk
from mullama.manifest.spec import Policy
from mullama.manifest.spec.core import ValidationError
from mullama.manifest.validation_messages import explain

_SHAPE = KeyTree(block=Policy)


def load_policy(path: str, name: str) -> Policy:
    """Load the policy at `path`. name: the file name in places.

    Raises `NotFound` or `Denied` for an unreadable file, and `ManifestError` with all mistakes.
    """
    try:
        data = Disk().read(path)
    except NotFound as error:
        raise NotFound(f"there is no policy {name}", name=name) from error
    try:
        return _policy(data, name)
    except ManifestError as error:
        raise ManifestError(error.problems, document="the policy") from error


def _policy(data: bytes, name: str) -> Policy:
    report = Diagnostics()
    document = read_document(data, name, DocumentBudget())
    report.extend(document.problems)
    if not isinstance(document.root, Fields):
        report.add("", document.root.place, "expected a map", "begin with `policy: v1`")
        report.check()
    root = trim(document.root, _SHAPE, report)
    places = dict(walk(root))
    tree = to_plain(root, _SHAPE, report)
    policy = None
    try:
        policy = Policy.model_validate(tree)
    except ValidationError as error:
        report.extend(explain(error, tree, (), lambda place: places.get(place) or document.root.place))
    report.check()
    assert policy is not None, "a validation error has a problem"
    return policy
