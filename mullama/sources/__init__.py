"""Sources of weights: one module for each scheme, and `library`, the entry point for all other packages.

    library.find_stored(text, index, foreign) -> StoredWeights | None     stored already; uses no network
    Library(index, foreign, settings).locate(text, lock_entry, offline) -> Located
    Library(…).ensure(located, report, cancelled) -> StoredWeights        fetched, hashed, header checked

A new scheme needs its module and one line in `registry`.
"""
