"""JSON schemas of the operator API's responses. The web page takes its types from them, through the OpenAPI document.

New keys may appear in a response within one number of its format, so no schema is closed.
"""

from __future__ import annotations

from typing import Any, cast

from mullama.names import JSONValue

TEXT: JSONValue = {"type": "string"}
FLAG: JSONValue = {"type": "boolean"}
COUNT: JSONValue = {"type": "integer", "minimum": 0}
TREE: JSONValue = {"type": "object"}
_NUMBER: JSONValue = {"type": "number"}
_TEXTS: JSONValue = {"type": "array", "items": TEXT}
_TIME: JSONValue = {"type": "number", "description": "Unix seconds"}
_SECONDS: JSONValue = {"type": "number", "description": "seconds"}
_BYTES: JSONValue = {"type": "integer", "minimum": 0, "description": "bytes"}


def record(**fields: JSONValue) -> JSONValue:
    """Return the schema of an object with these keys, all of them present."""
    return {"type": "object", "properties": fields, "required": list(fields)}


def array(items: JSONValue) -> JSONValue:
    """Return the schema of a list."""
    return {"type": "array", "items": items}


def one_of(*values: str) -> JSONValue:
    """Return the schema of one of these texts."""
    return {"enum": list(values)}


def nullable(schema: JSONValue) -> JSONValue:
    """Return the schema of a value or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def mapping(values: JSONValue) -> JSONValue:
    """Return the schema of an object with any names."""
    return {"type": "object", "additionalProperties": values}


def extended(schema: JSONValue, **fields: JSONValue) -> JSONValue:
    """Return the schema of an object with further keys."""
    known = cast(Any, schema)
    return {**known, "properties": {**known["properties"], **fields}, "required": [*known["required"], *fields]}


def partly(schema: JSONValue, *optional: str) -> JSONValue:
    """Return the schema of an object in which these keys may be absent."""
    fields = cast(Any, schema)
    return {**fields, "required": [name for name in fields["required"] if name not in optional]}


CONDITION = record(type=TEXT, status=FLAG, reason=TEXT, message=TEXT, hint=TEXT, since=nullable(_TIME))

_POOL = record(size=COUNT, worst_case=COUNT, used=COUNT, set_aside=COUNT, set_asides=COUNT, resumes=COUNT)
_DRAFT = record(kind=TEXT, guessed=COUNT, accepted=COUNT, accepted_at=array(COUNT))
_CHECKPOINTS = record(count=COUNT, bytes=_BYTES, most_bytes=_BYTES, restored=COUNT)

MODEL = record(
    name=TEXT,
    state=one_of("ready", "loading", "idle", "degraded", "failed"),
    revision=TEXT,
    declared=nullable(TEXT),
    generation=COUNT,
    is_default=FLAG,
    beside_manifest=FLAG,
    source=TEXT,
    digest=TEXT,
    size=_BYTES,
    fetched_from=nullable(TEXT),
    memory=_BYTES,
    gpu_layers=COUNT,
    devices=array(record(name=TEXT, bytes=_BYTES)),
    context_size=COUNT,
    parallel=COUNT,
    pool=nullable(_POOL),
    prefix_tokens=COUNT,
    draft=nullable(_DRAFT),
    checkpoints=nullable(_CHECKPOINTS),
    active=COUNT,
    waiting=COUNT,
    load=TEXT,
    ttl=nullable(_SECONDS),
    expires=nullable(_TIME),
    progress=nullable(_NUMBER),
    worker=nullable(COUNT),
    warnings=_TEXTS,
    conditions=array(CONDITION),
    memory_own=_BYTES,
    shared_with=nullable(TEXT),
)

_GIT = record(
    url=TEXT, ref=TEXT, path=TEXT, commit=nullable(TEXT), applied=nullable(TEXT), checked=nullable(_TIME),
    failures=COUNT,
)  # fmt: skip
_TLS = record(cert=TEXT, names=_TEXTS, expires=_TIME, client_certificates=FLAG)
_GROUP = record(name=TEXT, max=COUNT, loaded=_TEXTS, waiting=mapping(COUNT))
_RATE = record(limit=TEXT, unit=TEXT, rate=TEXT, remaining=_NUMBER, full_in=_SECONDS, refused=COUNT)
_DEVICE = partly(
    record(
        name=TEXT,
        description=TEXT,
        total=_BYTES,
        free=_BYTES,
        host=TEXT,
        fault=nullable(TEXT),
        ids={"type": "array", "items": TEXT, "description": "PCI address and UUID"},
    ),
    "host",
    "fault",
    "ids",
)
_ORIGIN = partly(
    record(
        path=nullable(TEXT), profiles=_TEXTS, digest=TEXT, commit=nullable(TEXT), targets=_TEXTS, fleet=nullable(TEXT)
    ),
    "commit",
    "targets",
    "fleet",
)

_PEER = record(
    name=TEXT,
    url=TEXT,
    state=one_of("ready", "ejected"),
    running=COUNT,
    failures=COUNT,
    reason=TEXT,
    passed_over=_TEXTS,
)

_TOOL_SERVER = record(
    name=TEXT,
    state=one_of("ready", "connecting", "unavailable"),
    tools=_TEXTS,
    changed=FLAG,
    message=TEXT,
)

STATUS = record(
    format={"const": "mullama.status/1"},
    version=TEXT,
    pid=COUNT,
    uptime=_SECONDS,
    generation=COUNT,
    revision=TEXT,
    state=one_of("starting", "ready", "reconciling", "degraded", "stopping"),
    origin=_ORIGIN,
    watch=FLAG,
    listen=_TEXTS,
    tls=nullable(_TLS),
    conditions=array(CONDITION),
    models=array(MODEL),
    memory=record(
        used=_BYTES,
        names=COUNT,
        models=COUNT,
        places=array(record(name=TEXT, used=_BYTES, budget=_BYTES)),
    ),
    routes=mapping(TEXT),
    shares=mapping(record(to=array(record(model=TEXT, weight=COUNT)), fallback=_TEXTS)),
    peers=array(_PEER),
    tools=array(_TOOL_SERVER),
    groups=array(_GROUP),
    git=nullable(_GIT),
    fleet=nullable(record(name=TEXT, host=nullable(TEXT), fence=COUNT, number=COUNT)),
    rates=array(_RATE),
    machine=record(ram_total=_BYTES, ram_available=_BYTES, gpus=array(_DEVICE), cores=COUNT),
    workers=array(COUNT),
)

_HELD = nullable(record(holder=TEXT, fleet=TEXT, seconds_left=_SECONDS))
LEASE = record(fence=COUNT, lease=_HELD)

_OUTCOME: dict[str, JSONValue] = {"steps_done": COUNT, "steps": COUNT, "outcome": TEXT, "message": TEXT, "hint": TEXT}
_ENDS = ("applied", "paused", "failed", "interrupted")
_CHANGES = ("changed", "unchanged", "failed", "running", "not reached", "away")
_ROLLOUT: dict[str, JSONValue] = {
    "fleet": TEXT,
    "kind": one_of("apply", "undo"),
    "holder": TEXT,
    "fence": COUNT,
    "number": COUNT,
    "began": _TIME,
    "updated": _TIME,
    "ended": nullable(one_of(*_ENDS)),
    "stage": COUNT,
    "stages": COUNT,
    "title": TEXT,
    "pause": {"anyOf": [{"type": "null"}, {"enum": ["manual"]}, _SECONDS]},
    "canary": _TEXTS,
}
ROLLOUT_RECORD = record(
    **_ROLLOUT,
    host=TEXT,
    hosts=mapping(record(url=TEXT, state=one_of(*_CHANGES), revision=nullable(TEXT), **_OUTCOME)),
    models=mapping(record(hosts=_TEXTS, replicas=COUNT)),
)
ROLLOUT = record(rollout=nullable(ROLLOUT_RECORD))
_FLEET_MEMORY = record(
    used=_BYTES,
    places=array(
        record(name=TEXT, description=TEXT, total=_BYTES, free=_BYTES, fault=TEXT, used=nullable(_BYTES),
               budget=nullable(_BYTES))
    ),
)  # fmt: skip
_FLEET_HOST = record(
    name=TEXT,
    url=TEXT,
    this=FLAG,
    state=TEXT,
    reason=TEXT,
    hint=TEXT,
    version=nullable(TEXT),
    uptime=nullable(_SECONDS),
    generation=nullable(COUNT),
    step=nullable(TEXT),
    changed_since=FLAG,
    result=nullable(record(state=one_of(*_CHANGES), **_OUTCOME)),
    models=COUNT,
    ready=COUNT,
    active=COUNT,
    waiting=COUNT,
    memory=nullable(_FLEET_MEMORY),
    faults=_TEXTS,
)
_PLACE_OF_MODEL = record(
    host=TEXT, state=TEXT, wanted=nullable(FLAG), active=COUNT, waiting=COUNT, memory=_BYTES,
    progress=nullable(_NUMBER), reason=TEXT,
)  # fmt: skip
FLEET = record(
    format={"const": "mullama.fleet-view/1"},
    name=nullable(TEXT),
    host=nullable(TEXT),
    when=_TIME,
    lease=_HELD,
    rollout=nullable(record(**_ROLLOUT, state=one_of(*_ENDS, "running", "lost"))),
    hosts=array(_FLEET_HOST),
    models=array(record(name=TEXT, replicas=nullable(COUNT), ready=COUNT, places=array(_PLACE_OF_MODEL))),
)
HISTORY = record(
    generations=array(
        record(
            generation=COUNT, revision=TEXT, when=_TIME, trigger=TEXT, by=TEXT, origin=_ORIGIN, summary=TREE,
            result=TEXT,
        )
    )
)  # fmt: skip

_FIELD_CHANGE = record(path=TEXT, cost=TEXT, sensitive=FLAG, before={}, after={})
_STEP = record(
    id=TEXT,
    kind=TEXT,
    model=nullable(TEXT),
    subject=TEXT,
    action=one_of("add", "update", "replace", "remove", "rename", "repair"),
    cause=one_of("desired", "drift"),
    cost=TEXT,
    changes=array(_FIELD_CHANGE),
    detail=TEXT,
    bytes_download=nullable(_BYTES),
    memory_before=nullable(_BYTES),
    memory_after=nullable(_BYTES),
    memory_worst_case=nullable(_BYTES),
    pause=FLAG,
    destructive=FLAG,
    refusal=TEXT,
    renamed_from=nullable(TEXT),
    file=nullable(TEXT),
    line=nullable(COUNT),
    column=nullable(COUNT),
)
_DEVICE_MEMORY = record(name=TEXT, description=TEXT, before=_BYTES, after=_BYTES, budget=_BYTES)
PLAN = record(
    format={"const": "mullama.plan/1"},
    complete=FLAG,
    base=TEXT,
    desired=TEXT,
    generation=COUNT,
    summary=TREE,
    steps=array(_STEP),
    drift=array(_STEP),
    warnings=_TEXTS,
    beside=_TEXTS,
    targets=_TEXTS,
)
COMPARISON = record(before=COUNT, after=COUNT, texts=_TEXTS, plan=PLAN)
PREVIEW = extended(PLAN, memory=array(_DEVICE_MEMORY))

MANIFEST_TEXT = record(path=TEXT, profiles=_TEXTS, text=TEXT, digest=TEXT, revision=TEXT, readonly=TEXT)
_PROBLEM = record(
    path=TEXT, file=nullable(TEXT), line=nullable(COUNT), column=nullable(COUNT), message=TEXT, hint=TEXT
)  # fmt: skip
TEXT_PLAN = record(
    problems=array(_PROBLEM), warnings=array(_PROBLEM), plan=nullable(PREVIEW), profiles=_TEXTS, removes_all=FLAG
)  # fmt: skip

_VALUE = record(
    path=TEXT,
    value={},
    cost=TEXT,
    layer=one_of("builtin", "defaults", "hardware", "like", "model", "profile", "command", "applied"),
    name=TEXT,
    file=nullable(TEXT),
    line=nullable(COUNT),
    column=nullable(COUNT),
    reference=TEXT,
)
_FILE = record(
    role=TEXT,
    name=TEXT,
    path=nullable(TEXT),
    size=nullable(_BYTES),
    digest=TEXT,
    source=TEXT,
    stored=FLAG,
    lock=one_of("pinned", "differs", "missing", "local"),
    declared=nullable(TEXT),
    problem=TEXT,
)
_CONTEXT = record(
    models=_TEXTS,
    state=one_of("cold", "opening", "ready", "closing"),
    size=COUNT,
    parallel=COUNT,
    pool=COUNT,
    cache_bytes=_BYTES,
    compute_bytes=_BYTES,
    opened_in=nullable(_SECONDS),
    prefix_tokens=COUNT,
    prefix_restored=FLAG,
    cells=COUNT,
    used=COUNT,
    sequences=array(record(use=one_of("request", "prefix", "conversation"), tokens=COUNT)),
    checkpoints=nullable(_CHECKPOINTS),
)
_TEMPLATE = record(
    source=one_of("manifest", "weights", "registry", "none"),
    syntax=one_of("jinja", "go"),
    text=TEXT,
    tools=FLAG,
    thinking=array({"type": ["boolean", "string"]}),
    system=TEXT,
)
_WORKER = record(
    pid=COUNT,
    engine=TEXT,
    version=TEXT,
    weights_bytes=_BYTES,
    remark=TEXT,
    decodes=COUNT,
    decode_seconds=_SECONDS,
    prompt_tokens=COUNT,
    cached_tokens=COUNT,
    completion_tokens=COUNT,
)
MODEL_DOCUMENT = record(
    format={"const": "mullama.model/1"},
    model=MODEL,
    aliases=_TEXTS,
    capabilities=_TEXTS,
    values=array(_VALUE),
    values_problem=TEXT,
    from_weights=mapping({}),
    template=_TEMPLATE,
    files=array(_FILE),
    contexts=array(_CONTEXT),
    worker=nullable(_WORKER),
)
LOGS = record(
    format={"const": "mullama.logs/1"},
    last=COUNT,
    lines=array(record(id=COUNT, when=_TIME, level=TEXT, part=TEXT, models=_TEXTS, text=TEXT)),
)
WORKER_LOG = record(pid=COUNT, lines=_TEXTS, output=TEXT)

_TIMINGS = record(total=_SECONDS, load=_SECONDS, prompt=_SECONDS, decode=_SECONDS, answers=COUNT)
_USAGE = record(
    prompt_tokens=COUNT, cached_tokens=COUNT, completion_tokens=COUNT, reasoning_tokens=COUNT, draft_tokens=COUNT,
    draft_accepted=COUNT,
)  # fmt: skip
_CALL = partly(
    record(server=TEXT, name=TEXT, arguments=TREE, text=TEXT, is_error=FLAG, seconds=_SECONDS), "arguments", "text"
)
CAPTURE = partly(
    record(
        id=COUNT,
        request=TEXT,
        when=_TIME,
        key=nullable(TEXT),
        dialect=TEXT,
        route=TEXT,
        model=TEXT,
        result=one_of("ok", "error", "cancelled"),
        seconds=_SECONDS,
        first_token=nullable(_SECONDS),
        timings=_TIMINGS,
        usage=_USAGE,
        finish=_TEXTS,
        error=nullable(record(kind=TEXT, message=TEXT)),
        kept=FLAG,
        prompt=nullable(TEXT),
        answer=nullable(TEXT),
        generation=COUNT,
        path=nullable(TEXT),
        body=nullable(TEXT),
        omitted=TEXT,
        turn=COUNT,
        calls=array(_CALL),
        masked=FLAG,
    ),
    "prompt",
    "answer",
    "body",
)
CAPTURES = record(format={"const": "mullama.requests/1"}, requests=array(CAPTURE))
STACK = record(generation=COUNT, revision=TEXT, manifest=TREE, origin=_ORIGIN)

_SUMS = record(
    requests=COUNT, errors=COUNT, cancelled=COUNT, prompt_tokens=COUNT, cached_tokens=COUNT, generated_tokens=COUNT,
    drafted_tokens=COUNT, accepted_tokens=COUNT, seconds=_SECONDS, start=_TIME, key=TEXT, route=TEXT, model=TEXT,
)  # fmt: skip
USAGE = record(
    format={"const": "mullama.usage/1"},
    since=_TIME,
    until=_TIME,
    by=_TEXTS,
    rows=array(partly(_SUMS, "start", "key", "route", "model")),
)

_COUNTED = ("ok", "errors", "cancelled", "prompt_tokens", "cached_tokens", "generated_tokens", "running", "waiting",
            "memory", "cache_size", "cache_used")  # fmt: skip
_TIMED = ("first_token_p50", "first_token_p95", "wait_p50", "wait_p95")
_COLUMNS = record(
    **{name: array(nullable(COUNT)) for name in _COUNTED}, **{name: array(nullable(_SECONDS)) for name in _TIMED}
)
_WHOLE = record(**dict.fromkeys(_COUNTED, COUNT), **dict.fromkeys(_TIMED, nullable(_SECONDS)))
METRICS_HISTORY = record(
    format={"const": "mullama.metrics/1"},
    now=_TIME,
    interval=_SECONDS,
    step=_SECONDS,
    when=array({"type": "number", "description": "the end of each step in Unix seconds"}),
    seconds=array({"type": "number", "description": "the measured seconds of each step; 0 for a gap"}),
    available=array(nullable(_BYTES)),
    devices=mapping(array(nullable(_BYTES))),
    total=_COLUMNS,
    models=mapping(_COLUMNS),
    whole=record(seconds=_SECONDS, total=_WHOLE, models=mapping(_WHOLE)),
    marks=array(record(when=_TIME, kind=TEXT, message=TEXT, generation=COUNT)),
)

_KEY = record(
    name=TEXT,
    roles=array(one_of("infer", "admin", "read", "files")),
    models=_TEXTS,
    mcp=nullable(_TEXTS),
    priority={"type": "integer"},
    secret={"type": "string", "description": "the place of the secret"},
    in_force=FLAG,
    limits=array(_RATE),
    usage=nullable(record(requests=COUNT, errors=COUNT, prompt_tokens=COUNT, generated_tokens=COUNT)),
    last_used=nullable(_TIME),
)
KEYS = record(format={"const": "mullama.keys/1"}, days=nullable(COUNT), keys=array(_KEY), own=nullable(TEXT))

_REPOSITORY: dict[str, JSONValue] = {
    "repository": TEXT,
    "downloads": COUNT,
    "likes": COUNT,
    "updated": {"type": "string", "description": "the time of the last commit in ISO 8601"},
    "gated": FLAG,
    "license": TEXT,
    "task": TEXT,
    "files": array(record(name=TEXT, size=nullable(_BYTES), quantization=TEXT)),
}
HUB_SEARCH = record(format={"const": "mullama.search/1"}, results=array(record(**_REPOSITORY)))
_RATING = record(
    quant=TEXT, file=TEXT, size_bytes=_BYTES, memory_bytes=_BYTES, share=_NUMBER, context_room=COUNT, quality=TEXT,
    status=one_of("recommended", "fits", "hybrid", "too large"), source=TEXT, name=TEXT,
)  # fmt: skip
HUB_REPOSITORY = record(
    format={"const": "mullama.hub/1"},
    **_REPOSITORY,
    machine=record(ram_available=_BYTES, devices=array(record(name=TEXT, free=_BYTES))),
    context_size=nullable({"type": "integer", "minimum": 1, "description": "the tokens for which the files are rated"}),
    recommended=nullable(TEXT),
    quants=array(_RATING),
    error=nullable(record(kind=TEXT, message=TEXT, hint=TEXT)),
)
