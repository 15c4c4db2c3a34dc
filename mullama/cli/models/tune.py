"""`mullama tune`: recommend a quantisation for this machine and write a manifest with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mullama.cli.app.context import CommandContext, Parser, UsageError, json_option
from mullama.cli.app.exit_codes import DONE
from mullama.cli.app.text_files import write_text
from mullama.cli.models.declared import declared_hardware, declared_model
from mullama.errors import Refused
from mullama.plan.quant_advice import QuantRating
from mullama.plan.report import Line
from mullama.units import size

if TYPE_CHECKING:
    from mullama.plan.observed import Machine


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
    from mullama.manifest.spec import Manifest
    from mullama.reconcile.files import Files
    from mullama.reconcile.hub_models import describe_repository, hub_repository, rate_quantizations, rating_tree

    options = call.options
    if (options.source is None) == (options.named is None):
        raise UsageError("tune takes one of SPEC and --model", hint="mullama tune hf:org/repo, or mullama tune -m NAME")
    wanted = options.source or options.named
    declared = declared_model(call, wanted)
    ref = hub_repository(declared.from_ if declared else wanted)
    files, manifest = Files.here(call.env), Manifest(mullama="v1")
    repository, machine = describe_repository(files, manifest, ref), _machine(call)
    rated = rate_quantizations(
        files, manifest, repository, machine, context=options.context_size, profile=options.profile
    )
    found, context, spec = rated.ratings, rated.context, rated.source(ref.repo)
    if rated.limited:
        call.terminal.note(f"the context is limited to {context} tokens, the length that the model was trained with")
    if options.emit:
        _write_manifest(call, spec, context)
    if options.json:
        names = [device.name for device in machine.gpus]
        quants = [rating_tree(v) for v in found]
        call.terminal.json({"profile": options.profile, "recommended": spec, "devices": names, "quants": quants})
    elif options.emit != "-":
        _print_ratings(call, found, spec)
        call.terminal.note(_devices(machine))
    return DONE


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
    from mullama.reconcile.hub_models import quality

    heads = ("QUANT", "SIZE", "MEMORY", "SHARE", "CONTEXT ROOM", "QUALITY", "STATUS")
    rows = (
        (v.offer.quant, size(v.offer.size), size(v.memory), f"{v.share:.0%}", str(v.room), quality(v.bits), v.status)
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
