"""`python -m mullama` and the console script `mullama`."""

import gc
import sys

_GC_THRESHOLD = 500_000  # objects made before garbage is collected: more than a short command makes

_INTERRUPTED = 130


def main() -> int:
    if sys.argv[1:] == ["--version"]:  # every tool that looks for mullama asks for it: answered before other imports
        from mullama import __version__

        print(f"mullama {__version__}")  # noqa: T201 - the answer itself
        return 0
    # Imports make many objects and no garbage. Collections take a tenth of a short command's time, and `freeze` spares
    # the one at exit.
    gc.set_threshold(_GC_THRESHOLD)
    try:
        from mullama.cli.app.main import main as run

        code = run()
    except KeyboardInterrupt:  # during the imports; `run` reports any other itself
        return _INTERRUPTED
    gc.freeze()
    return code


if __name__ == "__main__":
    sys.exit(main())
