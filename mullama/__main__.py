"""`python -m mullama`, and what the console script calls."""

import gc
import os
import sys

_OBJECTS = 500_000  # that may be made before unreachable ones are looked for: more than a short command makes


def main() -> int:
    if sys.argv[1:] == ["--version"]:  # asked by every tool that looks for mullama: answered before anything loads
        from mullama import __version__

        print(f"mullama {__version__}")  # noqa: T201 - the answer itself
        return 0
    # Imports make many objects and no garbage: looking for some takes a tenth of a short command's time, and once more
    # at the very end, if what is left is not kept out of it.
    gc.set_threshold(_OBJECTS)
    # No other package puts itself between a manifest and its types, nor costs the time to look for one that does.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from mullama.cli.app.main import main as run

    code = run()
    gc.freeze()
    return code


if __name__ == "__main__":
    sys.exit(main())
