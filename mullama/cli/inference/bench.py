"""`mullama bench`: measure a model on this machine, or a server under load."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mullama.cli.api_client.discover import api_key
from mullama.cli.app.context import CommandContext, Parser, UsageError, json_option
from mullama.cli.app.exit_codes import DONE
from mullama.cli.app.text_files import read_text
from mullama.cli.inference.conversation import response_format
from mullama.cli.inference.load_test import Load, Measured, quantile, run, words
from mullama.cli.models.declared import declared_model
from mullama.client.address import ServerAddress
from mullama.errors import EngineFailed, Invalid
from mullama.struct import Struct
from mullama.units import counted

if TYPE_CHECKING:
    from mullama.engines.base import Output
    from mullama.runtime.worker.blocking import BlockingWorker

_LOAD_ONLY = {"clients": 1, "shared_prefix": 0, "api": "chat", "until_end": False, "schema": None,
              "key_file": None}  # fmt: skip
_LOCAL_ONLY = {"threads": 0, "gpu_layers": 0, "file": None}


def bench_options(parser: Parser) -> None:
    count = _integer_from(1)
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="model to measure: a declared model, a GGUF file, builtin:NAME or a source that is on this machine",
    )
    parser.add_argument("--prompt-len", type=count, default=512, metavar="N", help="tokens per prompt (default: 512)")
    parser.add_argument("--gen-len", type=count, default=128, metavar="N", help="tokens per answer (default: 128)")
    parser.add_argument("--iterations", type=count, default=3, metavar="N", help="requests per client (default: 3)")
    parser.add_argument(
        "--warmup", type=_integer_from(0), default=1, metavar="N", help="requests that are not measured (default: 1)"
    )
    parser.add_argument(
        "--threads", type=_integer_from(0), default=0, metavar="N", help="CPU threads, 0 for every core"
    )
    parser.add_argument(
        "--gpu-layers", type=_integer_from(-1), default=0, metavar="N", help="layers on the GPU, -1 for all"
    )
    parser.add_argument("--url", metavar="URL", help="measure this OpenAI-compatible server instead")
    parser.add_argument("-m", "--model", dest="model_name", metavar="NAME", help="MODEL; with --url: model to request")
    parser.add_argument(
        "--clients", type=count, default=1, metavar="N", help="with --url: concurrent clients (default: 1)"
    )
    parser.add_argument(
        "--shared-prefix",
        type=_integer_from(0),
        default=0,
        metavar="N",
        help="with --url: words at the beginning of every prompt",
    )
    parser.add_argument(
        "--api", choices=("chat", "completions"), default="chat", help="with --url: endpoint to use (default: chat)"
    )
    parser.add_argument(
        "--until-end",
        action="store_true",
        help="with --url: let the model end its answers; without it, ignore_eos is sent",
    )
    parser.add_argument("--schema", metavar="FILE", help="with --url: JSON schema for the answers")
    parser.add_argument("--key-file", metavar="FILE", help="file with the API key (default: MULLAMA_API_KEY)")
    parser.add_argument("--manifest", dest="file", metavar="FILE", help="manifest of a declared model")
    json_option(parser)


def bench(call: CommandContext) -> int:
    options = call.options
    if options.url is None and options.model is None:
        options.model, options.model_name = options.model_name, None
    if (options.url is None) == (options.model is None) or (options.url is None and options.model_name is not None):
        raise UsageError(
            "bench takes either MODEL or --url", hint="mullama bench MODEL, or mullama bench --url URL --model NAME"
        )
    for name, default in (_LOCAL_ONLY if options.url else _LOAD_ONLY).items():
        if getattr(options, name) != default:
            raise UsageError(f"--{name.replace('_', '-')} has no effect {'with' if options.url else 'without'} --url")
    return _load(call) if options.url else _local(call)


# A server under load


def _load(call: CommandContext) -> int:
    options = call.options
    if options.model_name is None:
        raise UsageError("--url needs --model NAME")
    load = Load(
        model=options.model_name,
        clients=options.clients,
        requests=options.iterations,
        warmup=options.warmup,
        prompt_len=options.prompt_len,
        gen_len=options.gen_len,
        shared_len=options.shared_prefix,
        api=options.api,
        until_end=options.until_end,
        schema=_schema(call),
    )
    measured = asyncio.run(run(ServerAddress.parse(options.url), load, api_key(call)))
    tree = load_tree(load, measured)
    if options.json:
        call.terminal.json({"url": options.url, **tree})
        return DONE
    call.terminal.table(("measure", "median", "p99", "unit"), _load_rows(tree))
    requests, clients = counted(tree["requests"], "request"), counted(load.clients, "client")
    tokens = f"{counted(tree['prompt_tokens'], 'prompt token')}, {counted(tree['tokens'], 'token')}"
    call.terminal.line(f"{requests} by {clients}, {tokens} in {tree['seconds']:.2f} s")
    return DONE


def load_tree(load: Load, measured: Measured) -> dict[str, Any]:
    """Return a load and its measurements as JSON; times are in seconds."""
    return {
        "model": load.model,
        "clients": load.clients,
        "requests": len(measured.samples),
        "prompt_tokens": sum(sample.prompt_tokens for sample in measured.samples),
        "tokens": measured.tokens,
        "seconds": measured.seconds,
        "tokens_per_second": measured.tokens_per_second,
        "time_to_first_token": _spread(measured.firsts),
        "inter_token": _spread(measured.gaps) if measured.gaps else None,
    }


def _milliseconds(seconds: float | None) -> str:
    return "n/a" if seconds is None else f"{seconds * 1000:.1f}"


def _spread(values: list[float]) -> dict[str, float]:
    return {"p50": quantile(values, 0.5), "p99": quantile(values, 0.99), "max": max(values, default=0.0)}


def _load_rows(tree: dict[str, Any]) -> list[tuple[str, ...]]:
    first, gap = tree["time_to_first_token"], tree["inter_token"]
    return [
        ("throughput", f"{tree['tokens_per_second']:.1f}", "", "tokens/s"),
        ("time to first token", f"{first['p50'] * 1000:.1f}", f"{first['p99'] * 1000:.1f}", "ms"),
        ("between tokens", *(_milliseconds(gap and gap[share]) for share in ("p50", "p99")), "ms"),
    ]


def _schema(call: CommandContext) -> Any:
    if call.options.schema is None:
        return None
    return response_format(read_text(call.folder / Path(call.options.schema).expanduser()))


# A model on this machine


class Speeds(Struct, frozen=True, kw_only=True):
    """The speed of one request."""

    prefill: float
    """Prompt tokens per second, up to the first token of the answer."""
    decode: float | None
    """Answer tokens behind the first per second since the first; None for an answer of fewer than two tokens."""
    first: float
    """Seconds to the first piece of the answer."""


def _local(call: CommandContext) -> int:
    from mullama.engines.base import ContextOptions, WeightsOptions
    from mullama.runtime.worker.blocking import BlockingWorker, choice_of, files_here

    options = call.options
    source, threads, layers = _subject(call)
    files = files_here(source, call.env)
    engine = BlockingWorker(choice_of(files, WeightsOptions(gpu_layers=layers)))
    try:
        size = options.prompt_len + options.gen_len
        if engine.facts.train_context and size > engine.facts.train_context:
            raise Invalid(
                f"{size} tokens exceed the {engine.facts.train_context} that {options.model} was trained on",
                hint="reduce --prompt-len or --gen-len",
            )
        context = ContextOptions(size=size, threads=threads, threads_batch=threads)
        engine.call(engine.worker.open_context("bench", context))
        rounds = [_measure(engine, options, number) for number in range(options.warmup + options.iterations)]
    finally:
        engine.close()
    _print_speeds(call, rounds[options.warmup :])
    return DONE


def _subject(call: CommandContext) -> tuple[str, int, int]:
    """Return the source of MODEL, the threads and the layers on the GPU: a path, a declared model, or a source.

    A declared model brings its own threads and layers; options replace them.
    """
    options = call.options
    path = call.folder / Path(options.model).expanduser()
    declared = None if path.exists() else declared_model(call, options.model)
    if declared is None:
        return str(path) if path.exists() else str(options.model), options.threads, options.gpu_layers
    own = declared.gpu.layers
    layers = -1 if own == "all" else own if isinstance(own, int) else 0
    return declared.from_, options.threads or declared.context.threads or 0, options.gpu_layers or layers


def _measure(engine: BlockingWorker, options: argparse.Namespace, number: int) -> Speeds:
    """Run one request with a new prompt, so that nothing of it is cached."""
    from mullama.chat.types import DEFAULT_SAMPLING, Sampling
    from mullama.engines.base import Generate

    text = words(options.prompt_len, number)
    tokens = engine.call(engine.worker.tokenize(text, add_special=True, parse_special=False))
    job = Generate(
        id=engine.worker.next_id(),
        context="bench",
        prompt=tokens[: options.prompt_len],
        sampling=Sampling(temperature=0.0).over(DEFAULT_SAMPLING),
        max_tokens=options.gen_len,
        ignore_eos=True,
        cache=False,
    )
    return speeds_of(engine.outputs(job), time.perf_counter)


def speeds_of(outputs: Iterable[Output], clock: Callable[[], float]) -> Speeds:
    """Return the speed of a request that begins now.

    The engine measures the tokens: pieces of several tokens may arrive together.
    """
    from mullama.engines.base import Ended, Piece

    begun = clock()
    first = None
    for output in outputs:
        if first is None and isinstance(output, Piece | Ended):
            first = clock() - begun
        if isinstance(output, Ended):
            steps, seconds = output.completion_tokens - 1, output.decode_seconds
            return Speeds(
                prefill=output.prompt_tokens / output.prompt_seconds if output.prompt_seconds > 0 else 0.0,
                decode=steps / seconds if steps > 0 and seconds > 0 else None,
                first=first or 0.0,
            )
    raise EngineFailed("the answer has no end")


def _print_speeds(call: CommandContext, rounds: list[Speeds]) -> None:
    tree: dict[str, Any] = {
        "model": call.options.model,
        "prompt_len": call.options.prompt_len,
        "gen_len": call.options.gen_len,
        "prefill": _mean([r.prefill for r in rounds]),
        "decode": _mean([r.decode for r in rounds if r.decode is not None]),
        "time_to_first_token": _mean([r.first for r in rounds]),
    }
    if call.options.json:
        call.terminal.json(tree)
        return
    rows = [
        (f"prefill {call.options.prompt_len}", *_cells(tree["prefill"]), "tokens/s"),
        (f"decode {call.options.gen_len}", *_cells(tree["decode"]), "tokens/s"),
        ("time to first token", *_cells(tree["time_to_first_token"], 1000), "ms"),
    ]
    call.terminal.table(("measure", "mean", "±", "unit"), rows)


def _mean(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"mean": statistics.fmean(values), "sd": statistics.stdev(values) if len(values) > 1 else 0.0}


def _cells(value: dict[str, float] | None, scale: float = 1) -> tuple[str, str]:
    if value is None:
        return "n/a", ""
    return f"{value['mean'] * scale:.1f}", f"{value['sd'] * scale:.1f}"


def _integer_from(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value < 2**31:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least {least}")
        return value

    return parse
