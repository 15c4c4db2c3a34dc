"""Where weights come from: one module per scheme, and `library`, through which everything else asks.

    library.find_stored(text, index, foreign) -> StoredWeights | None     what is here already, without a network
    Library(index, foreign, settings).locate(text, lock_entry, offline) -> Located
    Library(…).ensure(located, report, cancelled) -> StoredWeights        fetched, hashed, header checked

A scheme is added by its module and one line in `table`.
"""
