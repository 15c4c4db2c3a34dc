"""A projector must fit its weights, gives the model its abilities, and counts in memory."""

from __future__ import annotations

import pytest

from mullama.manifest.spec import Manifest, Model
from mullama.plan.fit import need, projector_memory
from mullama.plan.make import make_plan
from mullama.plan.observed import KnownFiles, Observed
from mullama.plan.projectors import abilities, media_problems, projector_bytes, projector_of, projector_problem
from mullama.plan.steps import Cost
from mullama.struct import replace
from mullama.weights.facts import EncoderWork, ProjectorFacts
from mullama.weights.stored import ProjectorFile
from tests.plan.test_drafting import MAIN, facts

EYES = "hf:org/eyes:mmproj.gguf"
WIDTH = facts().embedding_length
SEES = ProjectorFile(
    path="/m/mmproj.gguf", digest="sha256:" + "b" * 64, size=5000, facts=ProjectorFacts(vision=True, width=WIDTH)
)
HEARS = replace(SEES, facts=ProjectorFacts(audio=True, width=WIDTH))


def model(**fields: object) -> Model:
    return Model.model_validate({"from": MAIN, **fields})


def files(
    projector: ProjectorFile | None = None, other: ProjectorFile | None = None, *, stored: bool = True
) -> dict[str, KnownFiles]:
    own = KnownFiles(
        source=MAIN, digest="sha256:" + "a" * 64, size=100_000, facts=facts(), stored=stored, projector=projector
    )
    named = KnownFiles(source=EYES, size=other.size, stored=stored, projector=other, facts=facts()) if other else None
    return {MAIN: own} | ({EYES: named} if named else {})


def test_the_field_decides_which_projector_a_model_has() -> None:
    both = files(SEES, HEARS)
    assert projector_of(model(), both) == SEES
    assert projector_of(model(mmproj=MAIN), both) == SEES
    assert projector_of(model(mmproj=EYES), both) == HEARS
    assert projector_of(model(mmproj="none"), both) is None
    assert projector_of(model(task="embedding"), both) is None
    weights = {EYES: KnownFiles(source=EYES, size=9, stored=True, facts=facts()), **files()}
    for named in (EYES, MAIN):
        assert (found := projector_of(model(mmproj=named), weights))
        assert not found.kinds
        assert "reads neither" in (projector_problem(model(mmproj=named), facts(), found) or "")
    assert projector_of(model(), files()) is None
    assert projector_bytes(model(), both) == 5000
    assert projector_bytes(model(mmproj="none"), both) == 0


def test_a_projector_takes_its_file_and_the_work_of_the_largest_medium_that_the_context_has_room_for() -> None:
    tiles = EncoderWork(positions=600, stages=((10, 0), (9, 0)))
    whole = EncoderWork(positions=4000, merged=4, stages=((10, 0), (2, 1)))
    works = replace(SEES, facts=ProjectorFacts(vision=True, width=WIDTH, work=(tiles, whole)))
    for size, largest in ((500, 2000), (1000, 4000), (8192, 4000)):
        wanted = model(context={"size": size})
        assert projector_memory(wanted, files(works)) == 5000 + 600 * 10 + largest * 2 + largest**2
    assert projector_memory(model(mmproj="none"), files(works)) == 0
    assert projector_memory(model(), files(SEES)) == 5000
    assert projector_bytes(model(), files(works)) == 5000  # of a download


def test_the_abilities_of_a_model_are_those_of_its_weights_and_its_projector() -> None:
    own = facts().capabilities
    assert abilities(facts(), SEES) == (*own, "vision")
    assert abilities(facts(), HEARS) == (*own, "audio")
    assert abilities(facts(), None) == own


@pytest.mark.parametrize(
    ("mmproj", "projector", "words"),
    [
        ("auto", SEES, None),
        ("auto", replace(SEES, facts=ProjectorFacts(vision=True)), None),
        (
            "auto",
            replace(SEES, facts=ProjectorFacts(vision=True, width=WIDTH + 1)),
            "is one of other weights: its vectors",
        ),
        (EYES, replace(SEES, facts=ProjectorFacts(width=WIDTH)), "reads neither images nor sound"),
        ("auto", None, None),
    ],
)
def test_a_projector_of_other_weights_is_refused(
    mmproj: str, projector: ProjectorFile | None, words: str | None
) -> None:
    found = projector_problem(model(mmproj=mmproj), facts(), projector)
    assert found is None if words is None else words in (found or "")
    assert projector_problem(model(mmproj=mmproj), None, projector) is None


@pytest.mark.parametrize(
    ("fields", "known", "found"),
    [
        ({"requires": ["vision"]}, files(SEES), []),
        ({"requires": ["vision"]}, files(HEARS), ["a lacks vision: its projector reads audio"]),
        ({"requires": ["vision", "audio"]}, files(), [f"a lacks vision and audio: {MAIN} has no projector"]),
        ({"requires": ["vision"], "mmproj": "none"}, files(SEES), ["a lacks vision: mmproj is none"]),
        ({"requires": ["vision"], "mmproj": EYES}, files(None, SEES), []),
        ({"requires": ["vision"], "mmproj": EYES}, files(), []),
        ({"requires": ["vision"]}, {}, []),
        ({"task": "transcription"}, files(HEARS), []),
        ({"task": "transcription"}, files(SEES), ["a lacks audio: its projector reads image"]),
    ],
)
def test_required_abilities_are_decided_by_the_headers_that_are_known(
    fields: dict[str, object], known: dict[str, KnownFiles], found: list[str]
) -> None:
    manifest = Manifest(mullama="v1", models={"a": model(**fields)})
    assert [text for _, _, text, _ in media_problems(manifest, known)] == found


def test_a_plan_counts_a_projector_and_warns_of_a_wrong_one() -> None:
    manifest = Manifest(mullama="v1", models={"a": model()})
    [alone], [beside] = (make_plan(manifest, Observed(files=files(projector))).steps for projector in (None, SEES))
    assert (beside.memory_after or 0) - (alone.memory_after or 0) == 5000
    absent = make_plan(manifest, Observed(files=files(SEES, stored=False))).steps[0]
    assert absent.bytes_download == 105_000
    wrong = replace(SEES, facts=ProjectorFacts(vision=True, width=WIDTH + 1))
    [warning] = make_plan(manifest, Observed(files=files(wrong))).warnings
    assert warning.startswith("models.a.mmproj: the projector /m/mmproj.gguf is one of other weights")


def test_another_projector_costs_files() -> None:
    from mullama.plan.changes import compare_models

    [change] = compare_models(model(), model(mmproj=EYES))
    assert (change.path, change.cost) == ("mmproj", Cost.FILES)
    assert need(model(), facts(), None, projector=7).context == need(model(), facts(), None).context + 7  # type: ignore[union-attr]
