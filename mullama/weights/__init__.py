"""GGUF headers: reading, the checks before native code reads a file, the choice of a file, memory arithmetic.

Pure: bytes come in through `read(offset, length)`, so a local file and a remote range are the same.

    gguf.read_header(read, size) -> Header             one file's header, bounded and checked as a container
    inspect.inspect(((read, size), …)) -> WeightFacts  all parts of a set, with every check of meaning
    split.split_name(name) -> (name, …)                the names of all parts of the set that `name` belongs to
    choose.choose(names, repo=…, file=…, quants=…) -> Choice     which files of a repository
    memory.need(facts, shape, contexts) -> MemoryNeed  bytes per device
    record.to_json(facts), record.from_json(value)     facts in a lock file or an index
"""
