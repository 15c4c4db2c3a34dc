"""`mullama tune`: recommend a quantisation for this machine and write a manifest with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mullama.cli.app.context import CommandContext, Parser, UsageError, json_option
from mullama.cli.app.exit_codes import DONE
from mullama.cli.app.text_files import write_text
from mullama.cli.models.declared import declared_hardware, declared_model
from mullama.cli.models.hub import hub_repository
from mullama.errors import MullamaError, Refused, Unsupported
from mullama.names import HubRef
from mullama.plan.quant_advice import Offer, QuantRating, Room, judge
from mullama.plan.report import Line
from mullama.struct import replace
from mullama.units import size

if TYPE_CHECKING:
    from mullama.plan.observed import Machine
    from mullama.weights.facts import WeightFacts

_QUALITY = ((8.0, "nearly lossless"), (6.0, "very high"), (5.0, "high"), (4.2, "good"), (3.4, "reduced"), (0.0, "low"))


def tune_options(parser: Parser) -> None:
    parser.add_argument("source", nargs="?", metavar="SPEC", help="hf:org/repo, a short name, or a declared model")
    parser.add_argument("-m", "--model", dest="named", metavar="NAME", help="the same as SPEC")
    parser.add_argument(
        "--profile",
        choices=("quality", "balanced", "fast"),
        default="balanced",
        help="what to optimize for (default: balanced)",
    )
    parser.add_argument(
        "-c",
        "--context-size",
        "--ctx-size",
        type=int,
        default=8192,
        metavar="N",
        help="tokens per request (default: 8192)",
    )
    parser.add_argument("--emit", metavar="PATH", help="write a manifest with the recommendation; - prints it")
    parser.add_argument("--name", default="chat", help="name of the model in the manifest (default: chat)")
    json_option(parser)


def tune(call: CommandContext) -> int:
    """Rate all quantisations of a repository. Only the list of files and one GGUF header are downloaded."""
    options = call.options
    if (options.source is None) == (options.named is None):
        raise UsageError("tune takes one of SPEC and --model", hint="mullama tune hf:org/repo, or mullama tune -m NAME")
    wanted = options.source or options.named
    declared = declared_model(call, wanted)
    ref = hub_repository(declared.from_ if declared else wanted)
    offers, facts = _offers(call, ref)
    most = facts.train_context or options.context_size
    context = min(options.context_size, most)
    if context < options.context_size:
        call.terminal.note(f"the context is limited to {context} tokens, the length that the model was trained with")
    fixed, per_token = _costs(facts, context)
    machine = _machine(call)
    room = Room(gpu=sum(device.free for device in machine.gpus), ram=machine.ram_available)
    judged = judge(offers, fixed=fixed, per_token=per_token, context=context, room=room, profile=options.profile)
    found = tuple(replace(verdict, room=min(verdict.room, most)) for verdict in judged)
    best = next((v for v in found if v.status == "recommended"), None)
    spec = f"hf:{ref.repo}:{best.offer.quant}" if best else None
    if options.emit:
        _write_manifest(call, spec, context)
    if options.json:
        names = [device.name for device in machine.gpus]
        quants = [_tree(v) for v in found]
        call.terminal.json({"profile": options.profile, "recommended": spec, "devices": names, "quants": quants})
    elif options.emit != "-":
        _print_ratings(call, found, spec)
        call.terminal.note(_devices(machine))
    return DONE


def _offers(call: CommandContext, ref: HubRef) -> tuple[tuple[Offer, ...], WeightFacts]:
    """Return the quantisations of a repository with their sizes, and the facts of the smallest one."""
    from mullama.manifest.spec import Manifest
    from mullama.reconcile.files import Files
    from mullama.sources.gguf_headers import remote_facts
    from mullama.sources.huggingface import repository
    from mullama.weights.choose import choose, quant_of

    files = Files.here(call.env)
    settings = files.settings(Manifest(mullama="v1"))
    sizes = dict(repository(ref, settings).files)
    offers = []
    for quant in sorted({quant_of(name) for name in sizes} - {""}):
        try:
            chosen = choose(sizes, repo=f"hf:{ref.repo}", quants=(quant,)).files
        except MullamaError:
            continue  # a split set with a missing part
        if all(sizes[name] for name in chosen):
            offers.append(Offer(quant=quant, file=chosen[0], size=sum(sizes[name] or 0 for name in chosen)))
    if not offers:
        raise Unsupported(f"{ref.repo} has no quantization with a known size")
    smallest = min(offers, key=lambda offer: offer.size)
    found = files.library(Manifest(mullama="v1")).locate(f"hf:{ref.repo}:{smallest.quant}", refresh=True)
    weights = [file for file in found.files if file.role == "weights"]
    return tuple(offers), remote_facts(weights, settings, lambda: False)


def _costs(facts: WeightFacts, context: int) -> tuple[int, float]:
    """Return the bytes of buffers, and the bytes of cache for each token."""
    from mullama.manifest.spec import Model
    from mullama.plan.fit import need

    def bytes_at(tokens: int) -> int:
        found = need(Model.model_validate({"from": "x.gguf", "context": {"size": tokens}}), facts, None)
        return found.context if found else 0

    small, large = bytes_at(context), bytes_at(2 * context)
    per_token = max(0.0, (large - small) / context)
    return max(0, int(small - per_token * context)), per_token


def _machine(call: CommandContext) -> Machine:
    """Return this machine, with the declared hosts and budgets."""
    from mullama.reconcile.machine import observe_machine

    return observe_machine(declared_hardware(call))


def _write_manifest(call: CommandContext, spec: str | None, context: int) -> None:
    from mullama.manifest.dump import to_yaml

    if spec is None:
        raise Refused("nothing fits this machine", hint="try a smaller model or a smaller --context-size")
    options = call.options
    model = {"from": spec, "context": {"size": context}}
    text = to_yaml({"mullama": "v1", "models": {options.name: model}, "routes": {"default": options.name}})
    if options.emit == "-":
        call.terminal.raw(text)
        return
    path = call.folder / Path(options.emit).expanduser()
    if path.exists():
        raise Refused(f"{path} already exists", hint="--emit - prints the manifest")
    write_text(path, text)
    call.terminal.note(f"wrote {path}")


def _print_ratings(call: CommandContext, found: tuple[QuantRating, ...], spec: str | None) -> None:
    heads = ("QUANT", "SIZE", "MEMORY", "SHARE", "CONTEXT ROOM", "QUALITY", "STATUS")
    rows = (
        (v.offer.quant, size(v.offer.size), size(v.memory), f"{v.share:.0%}", str(v.room), _quality(v.bits), v.status)
        for v in found
    )
    call.terminal.table(heads, rows)
    text = f"mullama pull {spec}" if spec else "nothing fits: try a smaller model or a smaller --context-size"
    call.terminal.toned([Line(text, "add" if spec else "remove")])


def _devices(machine: Machine) -> str:
    """Return a line with the devices, the free memory of which the ratings are about."""
    if not machine.gpus:
        return f"for main memory: {size(machine.ram_available)} available; there is no device"
    return "for " + ", ".join(f"{device.name} with {size(device.free)} free" for device in machine.gpus)


def _quality(bits: float) -> str:
    return next(word for least, word in _QUALITY if bits >= least) if bits else "unknown"


def _tree(verdict: QuantRating) -> dict[str, Any]:
    return {
        "quant": verdict.offer.quant,
        "file": verdict.offer.file,
        "size_bytes": verdict.offer.size,
        "memory_bytes": verdict.memory,
        "share": round(verdict.share, 4),
        "context_room": verdict.room,
        "quality": _quality(verdict.bits),
        "status": verdict.status,
    }
