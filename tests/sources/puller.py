"""A process that pulls one address into a store, to be killed while it does: `puller.py STORE URL`."""

from __future__ import annotations

import faulthandler
import sys

from mullama.sources.library import Library
from mullama.sources.settings import Patience, Settings, Waits
from mullama.store.foreign import Foreign, Roots
from mullama.store.index import Index

if __name__ == "__main__":
    faulthandler.dump_traceback_later(50, exit=True)  # a pull that hangs says where
    store, url = sys.argv[1:]
    settings = Settings(patience=Patience(first=0.01), waits=Waits(headers=20, idle=20))
    library = Library(Index(store), Foreign(Roots()), settings, {})
    stored = library.ensure(library.locate(url), lambda progress: None, lambda: False)
    sys.stdout.write(f"{stored.digest}\n")
