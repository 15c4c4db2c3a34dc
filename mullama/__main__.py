"""`python -m mullama` and the console script `mullama`."""

import gc
import os
import sys

_GC_THRESHOLD = 500_000  # objects made before garbage is collected: more than a short command makes


def main() -> int:
    if sys.argv[1:] == ["--version"]:  # every tool that looks for mullama asks for it: answered before other imports
        from mullama import __version__

        print(f"mullama {__version__}")  # noqa: T201 - the answer itself
        return 0
    # Imports make many objects and no garbage. Collections take a tenth of a short command's time, and `freeze` spares
    # the one at exit.
    gc.set_threshold(_GC_THRESHOLD)
    _disable_pydantic_plugins()
    from mullama.cli.app.main import main as run

    code = run()
    gc.freeze()
    return code


def _disable_pydantic_plugins() -> None:
    """Keep plugins of other packages out of the manifest's types, and spare the search for them.

    With plugins disabled, pydantic's loader still imports `importlib.metadata` and with it `email`, a tenth of the time
    of `diff`. An empty loader in its place imports nothing. Child processes have the variable alone.
    """
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    loader = type(sys)("pydantic.plugin._loader")
    loader.get_plugins = tuple  # type: ignore[attr-defined]
    sys.modules.setdefault(loader.__name__, loader)


if __name__ == "__main__":
    sys.exit(main())
