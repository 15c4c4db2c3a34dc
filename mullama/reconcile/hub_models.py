"""The repositories of the hub, and how well their quantizations fit this machine. Nothing is downloaded but headers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from mullama.errors import MullamaError, Unavailable, Unsupported
from mullama.manifest.spec import Hardware, Manifest, Model
from mullama.names import AliasRef, HubRef, model_name_of, parse_source
from mullama.plan.fit import need
from mullama.plan.observed import Machine
from mullama.plan.quant_advice import Offer, Profile, QuantRating, Room, judge
from mullama.reconcile.files import Files
from mullama.reconcile.machine import observe_machine
from mullama.sources import huggingface
from mullama.sources.aliases import aliases, expand
from mullama.sources.gguf_headers import remote_facts
from mullama.sources.huggingface import Repository
from mullama.sources.settings import Requester
from mullama.struct import Struct, replace
from mullama.weights.choose import choose, quant_of
from mullama.weights.facts import WeightFacts

_QUALITY: Final = (
    (8.0, "nearly lossless"), (6.0, "very high"), (5.0, "high"), (4.2, "good"), (3.4, "reduced"), (0.0, "low"),
)  # fmt: skip
_OPERATOR = Requester()


class HubRatings(Struct, frozen=True, kw_only=True):
    """The quantizations of a repository, best quality first."""

    ratings: tuple[QuantRating, ...]
    context: int
    """Tokens of context for which they are rated: no more than the model was trained with."""
    limited: bool
    """True if more tokens were asked for."""

    def source(self, repo: str) -> str | None:
        """Return the source of the recommended quantization; None where nothing fits."""
        best = next((one for one in self.ratings if one.status == "recommended"), None)
        return f"hf:{repo}:{best.offer.quant}" if best else None


class HubBrowser:
    """Asks the hub of the manifest in force for the operator of a server. Its methods block.

    manifest: returns the one in force. observe: returns the machine with its free memory.
    """

    def __init__(
        self,
        files: Files,
        manifest: Callable[[], Manifest],
        *,
        observe: Callable[[Hardware], Machine] = observe_machine,
    ) -> None:
        self._files, self._manifest, self._observe = files, manifest, observe

    def search(self, query: str, *, limit: int, every: bool, author: Requester) -> list[dict[str, Any]]:
        """Return the published forms of the repositories that match, the most downloaded first."""
        _require_network(self._files)
        found = huggingface.search(query, self._files.settings(self._manifest(), author), limit=limit, every=every)
        return [repository_tree(one) for one in found]

    def advice(self, source: str, *, context: int, profile: Profile, author: Requester) -> dict[str, Any]:
        """Return a repository with its ratings. Where there are none, the answer has the reason, and the files."""
        manifest = self._manifest()
        found = describe_repository(self._files, manifest, hub_repository(source), author=author)
        machine = self._observe(manifest.hardware)
        rated: HubRatings | MullamaError
        try:
            rated = rate_quantizations(
                self._files, manifest, found, machine, context=context, profile=profile, author=author
            )
        except MullamaError as error:
            rated = error
        return advice_tree(found, rated, machine)


def hub_repository(text: str) -> HubRef:
    """Parse `org/repo`, `hf:org/repo` or a short name; raise `Unsupported` for another source."""
    source = text if ":" in text or text.count("/") != 1 else f"hf:{text}"
    ref = parse_source(source)
    if isinstance(ref, AliasRef):
        ref = expand(ref, aliases()).ref
    if not isinstance(ref, HubRef):
        raise Unsupported(f"{text} is not a repository of a hub", hint="for example hf:org/repo")
    return ref


def describe_repository(files: Files, manifest: Manifest, ref: HubRef, *, author: Requester = _OPERATOR) -> Repository:
    """Return a repository with its files."""
    _require_network(files)
    return huggingface.repository(ref, files.settings(manifest, author))


def rate_quantizations(
    files: Files, manifest: Manifest, found: Repository, machine: Machine, *, context: int, profile: Profile,
    author: Requester = _OPERATOR,
) -> HubRatings:  # fmt: skip
    """Rate the quantizations of a repository for the free memory of a machine; one GGUF header is downloaded."""
    offers = offers_of(found)
    smallest = min(offers, key=lambda offer: offer.size)
    source = f"hf:{found.name}:{smallest.quant}"
    located = files.library(manifest, author).locate(source, refresh=True)
    weights = [file for file in located.files if file.role == "weights"]
    facts = remote_facts(weights, files.settings(manifest, author), lambda: False)
    most = facts.train_context or context
    tokens = min(context, most)
    fixed, per_token = _costs(facts, tokens)
    room = Room(gpu=sum(device.free for device in machine.gpus), ram=machine.ram_available)
    judged = judge(offers, fixed=fixed, per_token=per_token, context=tokens, room=room, profile=profile)
    return HubRatings(
        ratings=tuple(replace(one, room=min(one.room, most)) for one in judged),
        context=tokens,
        limited=tokens < context,
    )


def offers_of(found: Repository) -> tuple[Offer, ...]:
    """Return the quantizations of a repository with their sizes; raise `Unsupported` for one without any."""
    sizes, offers = dict(found.files), []
    for quant in sorted({quant_of(name) for name in sizes} - {""}):
        try:
            chosen = choose(sizes, repo=f"hf:{found.name}", quants=(quant,)).files
        except MullamaError:
            continue  # a split set with a missing part
        if all(sizes[name] for name in chosen):
            offers.append(Offer(quant=quant, file=chosen[0], size=sum(sizes[name] or 0 for name in chosen)))
    if not offers:
        raise Unsupported(f"{found.name} has no quantization with a known size")
    return tuple(offers)


def repository_tree(found: Repository) -> dict[str, Any]:
    """Return the published form of a repository."""
    return {
        "repository": found.name,
        "downloads": found.downloads,
        "likes": found.likes,
        "updated": found.updated,
        "gated": found.gated,
        "license": found.license,
        "task": found.task,
        "files": [{"name": name, "size": count, "quantization": quant_of(name)} for name, count in found.files],
    }


def rating_tree(rating: QuantRating) -> dict[str, Any]:
    """Return the published form of a rating."""
    return {
        "quant": rating.offer.quant,
        "file": rating.offer.file,
        "size_bytes": rating.offer.size,
        "memory_bytes": rating.memory,
        "share": round(rating.share, 4),
        "context_room": rating.room,
        "quality": quality(rating.bits),
        "status": rating.status,
    }


def quality(bits: float) -> str:
    """Return the quality of a number of bits per weight in words."""
    return next(word for least, word in _QUALITY if bits >= least) if bits else "unknown"


def advice_tree(found: Repository, rated: HubRatings | MullamaError, machine: Machine) -> dict[str, Any]:
    """Return a repository with its ratings, or with the error for which there are none."""
    base = {
        "format": "mullama.hub/1",
        **repository_tree(found),
        "machine": {
            "ram_available": machine.ram_available,
            "devices": [{"name": device.name, "free": device.free} for device in machine.gpus],
        },
    }
    if isinstance(rated, MullamaError):
        reason = {"kind": rated.kind.value, "message": rated.message, "hint": rated.hint}
        return {**base, "context_size": None, "recommended": None, "quants": [], "error": reason}
    names = {one.offer.quant: model_name_of(f"hf:{found.name}:{one.offer.quant}") for one in rated.ratings}
    quants = [
        {**rating_tree(one), "source": f"hf:{found.name}:{one.offer.quant}", "name": names[one.offer.quant]}
        for one in rated.ratings
    ]
    return {
        **base, "context_size": rated.context, "recommended": rated.source(found.name), "quants": quants, "error": None,
    }  # fmt: skip


def _require_network(files: Files) -> None:
    if files.offline(False):
        raise Unavailable(
            "the hub is not asked, because HF_HUB_OFFLINE forbids the network",
            hint="unset it where mullama starts; the files of this machine serve without a network",
        )


def _costs(facts: WeightFacts, context: int) -> tuple[int, float]:
    """Return the bytes of buffers, and the bytes of cache for each token."""

    def bytes_at(tokens: int) -> int:
        found = need(Model.model_validate({"from": "x.gguf", "context": {"size": tokens}}), facts, None)
        return found.context if found else 0

    small, large = bytes_at(context), bytes_at(2 * context)
    per_token = max(0.0, (large - small) / context)
    return max(0, int(small - per_token * context)), per_token
