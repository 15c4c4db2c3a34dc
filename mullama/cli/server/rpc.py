"""`mullama rpc`: lend the devices of this machine to mullama and llama.cpp on other machines."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from mullama.cli.app.context import CommandContext, Parser, UsageError
from mullama.cli.app.exit_codes import DONE
from mullama.errors import Invalid
from mullama.units import parse_size, size

if TYPE_CHECKING:
    from mullama.manifest.addresses import TcpAddress

_PORT = 50052  # of llama.cpp's rpc-server


def rpc_options(parser: Parser) -> None:
    parser.add_argument(
        "--listen",
        default=f"127.0.0.1:{_PORT}",
        metavar="HOST:PORT",
        help=f"address to listen on; port 0 takes a free one (default: 127.0.0.1:{_PORT})",
    )
    parser.add_argument(
        "--device",
        action="append",
        default=[],
        metavar="NAME",
        help="lend this device; repeatable (default: all GPUs, the CPU without any)",
    )
    parser.add_argument("--memory", metavar="SIZE", help="lend at most this much memory, such as 20GiB")
    parser.add_argument("-t", "--threads", type=int, default=0, metavar="N", help="threads of the CPU (default: all)")


def rpc(call: CommandContext) -> int:
    """Lend devices until SIGINT or SIGTERM. Models with `hardware.rpc` use them."""
    from mullama.engines import require_installed
    from mullama.engines.llamacpp.rpc.lend import Lender, MemoryBudget, lendable, listen, stop_signals

    options, terminal = call.options, call.terminal
    require_installed("llamacpp")
    address = _address(options.listen)
    bound = _memory(options.memory)
    if options.threads < 0:
        raise UsageError("--threads: expected 0 or more")
    devices = lendable(call.env, options.device)
    lines = threading.Lock()

    def report(line: str) -> None:
        with lines:
            terminal.line(line)

    with listen(address.host, address.port) as listener, stop_signals() as stopping:
        budget = MemoryBudget(bound)
        for device in devices:
            free, total = budget.seen(device.free, device.total)
            text = f"{size(free, digits=2)} of {size(total, digits=2)} free"
            report(f"lends {device.name} ({device.description}): {text}")
        if not address.loopback:
            terminal.note(
                f"warning: {address.host} is reachable from other machines. llama.cpp's RPC has no authentication and"
                " no encryption: who reaches the port can use, read and crash it. Admit trusted machines alone."
            )
        lender = Lender(
            listener=listener, devices=[device.name for device in devices], budget=budget, env=call.env, report=report,
            threads=options.threads,
        )  # fmt: skip
        lender.prepare()
        host, port = listener.getsockname()
        report(f"listens on {host}:{port}; a manifest uses it with hardware.rpc: [{host}:{port}]")
        lender.run(stopping)
    report("stopped")
    return DONE


def _address(text: str) -> TcpAddress:
    """Return the address to listen on. llama.cpp's RPC uses IPv4."""
    from mullama.manifest.addresses import TcpAddress, parse_address

    try:
        address = parse_address(text)
    except Invalid as error:
        raise UsageError(f"--listen: {error.message}", hint="--listen 127.0.0.1:50052") from error
    if not isinstance(address, TcpAddress) or ":" in address.host:
        raise UsageError(f"--listen: llama.cpp's RPC uses IPv4, not {text}", hint="--listen 127.0.0.1:50052")
    return address


def _memory(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_size(text)
    except ValueError as error:
        raise UsageError(f"--memory: {error}", hint="a size such as 20GiB") from error
