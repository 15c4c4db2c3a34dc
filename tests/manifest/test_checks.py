"""What the parts of a manifest must agree on."""

from __future__ import annotations

import pytest

from tests.manifest.builders import problems, read

M = "models: {a: builtin:tiny, b: builtin:tiny}\n"
P = "peers: {box: {url: 'http://127.0.0.1:1'}}\n" + M

MISTAKES = [
    (
        "models: {Chat: builtin:tiny, chat: builtin:tiny}",
        "m.yaml:2:30: models.chat: the model Chat has the same name",
    ),
    (
        "models: {chat: builtin:tiny, 'chat:latest': builtin:tiny}",
        "the model chat has the same name (rename one of them)",
    ),
    (
        "models: {a: {from: builtin:tiny, embedding: {prompts: {query: 'q: '}, default_prompt: querry}}}",
        "m.yaml:2:87: models.a.embedding.default_prompt: there is no prompt 'querry' (did you mean query?)",
    ),
    (M + "routes: {A: b}", "m.yaml:3:13: routes.A: the model a has the same name"),
    (M + "routes: {a: {to: [b, a]}}", "routes.a: the model a has the same name (rename one of them)"),
    (
        M + "routes: {a: {to: [a], fallback: [r]}, r: {to: [b], fallback: [a]}}",
        "routes.a.fallback[0]: the fallbacks form a circle: a -> r -> a (remove one of them)",
    ),
    ("models: {../x: builtin:tiny}", "m.yaml:2:10: models.../x: '../x' is not a model name"),
    (
        "models: {a: {from: builtin:tiny, adapters: [{from: ./x.gguf}, {from: 'builtin:tiny'}]}}",
        "m.yaml:2:70: models.a.adapters[1].from: builtin:tiny is a model, not an adapter",
    ),
    (
        "models: {a: {from: builtin:tiny, adapters: [{from: ./x.gguf}, {from: ./x.gguf}]}}",
        "models.a.adapters[1].from: the adapter is listed twice (remove one, or give it the sum of the scales)",
    ),
    (
        "models: {a: {from: builtin:tiny, adapters: [{from: ./x.gguf, name: x}, {from: ./y.gguf, name: x}]}}",
        "models.a.adapters[1].name: two adapters have the name 'x' (rename one of them)",
    ),
    (
        "models: {a: {from: builtin:tiny, adapters: [{from: ./x.gguf, expose: true}]}}",
        "models.a.adapters[0].expose: an exposed adapter needs a name (add name: NAME)",
    ),
    (
        "models: {a: {from: builtin:tiny, adapters: [{from: ./x.gguf, name: A, expose: true}]}}",
        "models.a.adapters[0].name: the model a has the same name (rename one of them)",
    ),
    (
        "models: {a: {from: builtin:tiny, adapters: [{from: ./x.gguf, name: s, expose: true}]}, "
        "b: {from: builtin:tiny, adapters: [{from: ./x.gguf, name: s, expose: true}]}}",
        "models.b.adapters[0].name: the adapter s of a has the same name (rename one of them)",
    ),
    (
        "models: {a: {from: builtin:tiny, adapters: [{from: ./x.gguf, name: ../s, expose: true}]}}",
        "models.a.adapters[0].name: '../s' is not a model name",
    ),
    (
        "models: {a: {from: builtin:tiny, task: embedding, adapters: [{from: ./x.gguf, name: s, expose: true}]}}",
        "models.a.adapters[0].expose: a model with the task embedding has no adapters of their own name",
    ),
    (
        "models: {a: {from: builtin:tiny, gpu: {devices: [CUDA0, cuda0]}}}",
        "m.yaml:2:57: models.a.gpu.devices[1]: cuda0 is listed twice (keep one of them)",
    ),
    (
        "models: {a: {from: builtin:tiny, gpu: {devices: [CUDA0], layers: {'1': 3}}}}",
        "models.a.gpu.layers.1: there is no device 1 in gpu.devices (devices are counted from 0",
    ),
    (
        "models: {a: {from: builtin:tiny, gpu: {devices: [CUDA0], main: 1}}}",
        "models.a.gpu.main: there is no device 1 in gpu.devices",
    ),
    (
        "models: {a: {from: builtin:tiny, gpu: {devices: [CUDA0], tensor_split: [1, 1]}}}",
        "models.a.gpu.tensor_split: 2 shares for 1 device",
    ),
    ("models: {'a b': builtin:tiny}", "'a b' is not a model name (letters, digits,"),
    ("models: {é: builtin:tiny}", "'é' is not a model name"),
    ("models: {'': builtin:tiny}", "'' is not a model name"),
    (M + "routes: {'a/../b': a}", "is not a model name"),
    (M + "routes: {r: c}", "m.yaml:3:13: routes.r: there is no model 'c'"),
    (M + "routes: {r: q, q: a}", "m.yaml:3:13: routes.r: q is a route, not a model (name its model)"),
    (M + "routes: {r: r}", "r is a route, not a model"),
    (M + "groups: {g: {models: [a, c]}}", "m.yaml:3:26: groups.g.models[1]: there is no model 'c'"),
    (M + "groups: {g: {models: [a, a]}}", "m.yaml:3:26: groups.g.models[1]: a is listed twice (keep one of them)"),
    (
        M + "groups: {g: {models: [a, b]}}",
        "m.yaml:2:27: models.b: the group g loads 1 of its models at a time, and 2 load at start: a, b (set",
    ),
    (
        "models: {a: {from: builtin:tiny, residency: {load: when_room, ttl: 5m}}}",
        "m.yaml:2:68: models.a.residency.ttl: a model that is loaded when there is room has no time to live",
    ),
    (
        "models: {a: {from: builtin:tiny, scale: {min: 3, max: 2}}}",
        "m.yaml:2:55: models.a.scale.max: max is 2 and min is 3 (raise max, or lower min)",
    ),
    (
        M + "routes: {r: {to: [{model: a, weight: 0}, {model: b, weight: 0}]}}",
        "m.yaml:3:14: routes.r.to: the weights add up to 0 (at least one weight must be more than 0)",
    ),
    (M + "routes: {r: {to: [a, {model: a, weight: 3}]}}", "m.yaml:3:22: routes.r.to[1]: a is listed twice"),
    (M + "routes: {r: m@box}", "m.yaml:3:13: routes.r.to[0].peer: there is no peer 'box'"),
    (M + "routes: {r: {to: a, fallback: [m@box]}}", "routes.r.fallback[0]: there is no peer 'box'"),
    (P + "routes: {r: {to: [a, m@box, {model: m, peer: box}]}}", "routes.r.to[2]: m@box is listed twice"),
    (P + "routes: {r: {to: [{peer: box}]}}", "routes.r.to[0].model"),
    (P + "routes: {r: {to: a, fallback: ['@box']}}", "routes.r.fallback[0]: @box names no model of the peer"),
    ("peers: {'a b': {url: 'http://127.0.0.1:1'}}\n" + M, "peers.a b: 'a b' is not a name of a peer"),
    ("peers: {b: {url: 'https://u:p@h.example'}}\n" + M, "the address of a peer has no secret"),
    *(
        (f'peers: {{b: {{url: "{url}"}}}}\n' + M, f"{shown!r} is not the address of a server")
        for url, shown in (
            ("http://b\u00fccher.example", "http://b\u00fccher.example"),
            ("http://h/a b", "http://h/a b"),
            ("http://h\\tx", "http://h\tx"),
            ("http://h:0", "http://h:0"),
            ("http://h:99999", "http://h:99999"),
            ("http://h?key=secret", "http://h?key=***"),
        )
    ),
    ("peers: {b: {url: 'ftp://h.example'}}\n" + M, "'ftp://h.example' is not the address of a server"),
    ("peers: {b: {url: 'http://h.example', key: {from_env: A, from_file: b}}}\n" + M, "peers.b.key: expected one of"),
    (M + "routes: {r: {to: [a, c]}}", "m.yaml:3:22: routes.r.to[1].model: there is no model 'c'"),
    (M + "routes: {r: {to: [a, q]}, q: b}", "m.yaml:3:22: routes.r.to[1].model: q is a route, not a model"),
    (M + "routes: {r: {to: a, fallback: [c]}}", "m.yaml:3:32: routes.r.fallback[0]: there is no model or route 'c'"),
    (M + "routes: {r: {to: a, fallback: [b, b]}}", "m.yaml:3:35: routes.r.fallback[1]: b is listed twice"),
    (M + "routes: {r: {to: a, fallback: [a]}}", "m.yaml:3:32: routes.r.fallback[0]: a is the model that failed"),
    (
        M + "routes: {r: {to: a, fallback: [b], on_error: []}}",
        "m.yaml:3:36: routes.r.on_error: a fallback needs an error that leads to it",
    ),
    (
        M + "routes: {r: {to: a, fallback: [r]}}",
        "m.yaml:3:32: routes.r.fallback[0]: the fallbacks form a circle: r -> r (remove one of them)",
    ),
    (
        M + "routes: {p: {to: a, fallback: [q]}, q: {to: b, fallback: [r]}, r: {to: a, fallback: [b, q]}}",
        "m.yaml:3:59: routes.q.fallback[0]: the fallbacks form a circle: q -> r -> q (remove one of them)",
    ),
    (
        M + "moved: [{from: a, to: b}]",
        "m.yaml:3:9: moved[0]: a is still a model (remove the entry, or rename the model)",
    ),
    (M + "moved: [{from: x, to: a}, {from: x, to: b}]", "m.yaml:3:27: moved[1]: x has two entries"),
    (M + "moved: [{from: x, to: x}]", "moved[0]: the renames of x form a circle"),
    (M + "moved: [{from: x, to: y}, {from: y, to: z}, {from: z, to: y}]", "moved[0]: the renames of x form a circle"),
    (
        M + "routes: {r: a}\nmoved: [{from: r, to: s, kind: route}]",
        "m.yaml:4:9: moved[0]: r is still a route (remove the entry, or rename the route)",
    ),
    (
        M + "moved: [{from: k, to: l, kind: key}, {from: l, to: k, kind: key}]",
        "m.yaml:3:9: moved[0]: the renames of k form a circle (remove one of them)",
    ),
    (M + "moved: [{from: 'k/1', to: k, kind: key}]", "m.yaml:3:16: moved[0].from: 'k/1' is not a valid key name"),
    (M + "moved: [{from: x, to: a, kind: group}]", "m.yaml:3:32: moved[0].kind: "),
    (M + "moved: [{from: 'x y', to: a}]", "m.yaml:3:16: moved[0].from: 'x y' is not a model name"),
    (
        "server: {listen: ['0.0.0.0:80']}",
        "m.yaml:2:19: server.listen[0]: 0.0.0.0:80 is reachable from other machines, "
        "and auth.keys is empty (add auth.keys, or listen on 127.0.0.1)",
    ),
    ("server: {listen: ['[::]:80']}", "[::]:80 is reachable from other machines"),
    ("server: {listen: ['host.example.org:80']}", "is reachable from other machines"),
    (
        "server: {listen: ['127.0.0.1:80', '127.0.0.1:80']}",
        "m.yaml:2:35: server.listen[1]: 127.0.0.1:80 is listed twice",
    ),
    ("server: {listen: ['unix:./a', 'unix:/srv/app/a']}", "unix:/srv/app/a is listed twice"),
    (
        "server: {listen: ['127.0.0.1']}",
        "m.yaml:2:19: server.listen[0]: '127.0.0.1' is not an address to listen on (127",
    ),
    (
        "server: {dialects: [openai]}\nmodels: {a: {from: builtin:tiny, dialects: [openai, ollama]}}",
        "m.yaml:3:53: models.a.dialects[1]: the server does not serve ollama (see server.dialects)",
    ),
    (
        M + "auth: {keys: {k: {secret: {from_env: K}, models: [a, c]}}}",
        "m.yaml:3:54: auth.keys.k.models[1]: there is no model 'c'",
    ),
    (
        "auth: {keys: {k: {secret: {}}}}",
        "m.yaml:2:19: auth.keys.k.secret: expected one of from_env and from_file",
    ),
    (
        "auth: {keys: {k: {secret: {from_env: A, from_file: b}}}}",
        "expected one of from_env and from_file ({from_env: NAME} or",
    ),
    (
        "sources: {hf: {token: {optional: true}}}",
        "sources.hf.token: expected one of from_env and from_file",
    ),
    (
        "auth: {keys: {'a b': {secret: {from_env: K}}}}",
        "m.yaml:2:15: auth.keys.a b: 'a b' is not a valid key name",
    ),
    (
        "models: {a: {from: builtin:tiny, context: {flash_attention: off, kv: {v: q8_0}}}}",
        "m.yaml:2:74: models.a.context.kv.v: q8_0 values need flash attention "
        "(set context.flash_attention to auto or on, or kv.v to f16)",
    ),
    (
        "hardware: {profiles: {p: {context: {flash_attention: off, kv: {v: q4_0}}}}}",
        "hardware.profiles.p.context.kv.v: q4_0 values need flash attention",
    ),
    (
        "models: {a: {from: builtin:tiny, context: {batch: 8, ubatch: 16}}}",
        "m.yaml:2:62: models.a.context.ubatch: larger than context.batch, which is 8",
    ),
    (
        "models: {a: {from: builtin:tiny, context: {size: 4096, pool: 4095}}}",
        "m.yaml:2:62: models.a.context.pool: a pool of 4095 tokens has no room for one request, which may have 4096 "
        "(a larger pool, or a smaller context.size)",
    ),
    (
        "models: {a: {from: builtin:tiny, task: embedding, context: {pool: 4096}}}",
        "models.a.context.pool: a model for embedding keeps no conversations (remove pool)",
    ),
    (
        "models: {a: {from: builtin:tiny, context: {checkpoints: -1}}}",
        "m.yaml:2:57: models.a.context.checkpoints: must be at least 0, not -1",
    ),
    (
        "models: {a: {from: builtin:tiny, context: {checkpoints: atuo}}}",
        "m.yaml:2:57: models.a.context.checkpoints: expected auto, or a size such as 1GiB, not 'atuo'",
    ),
    (
        "models: {a: {from: builtin:tiny, context: {checkpoints: [1]}}}",
        "models.a.context.checkpoints: expected auto, or a size such as 1GiB",
    ),
    (
        "models: {a: {from: builtin:tiny, draft: nrgam}}",
        "m.yaml:2:41: models.a.draft.from: 'nrgam' is none of auto, none, ngram, mtp "
        "(did you mean ngram? ollama:nrgam is the model of that name)",
    ),
    (
        "models: {a: {from: builtin:tiny, draft: {from: Auto}}}",
        "(did you mean auto? ollama:Auto is the model of that name)",
    ),
    (
        "models: {a: {from: builtin:tiny, mmproj: nnoe}}",
        "m.yaml:2:42: models.a.mmproj: 'nnoe' is none of auto, none "
        "(did you mean none? ollama:nnoe is the model of that name)",
    ),
    (
        "models: {a: {from: builtin:tiny, context: {pool: most}}}",
        "models.a.context.pool: expected auto, worst_case, or a number of tokens",
    ),
    (
        "models: {a: {from: builtin:tiny, context: {pool: 0}}}",
        "models.a.context.pool: expected auto, worst_case, or a number of tokens",
    ),
    (
        "models: {a: {from: builtin:tiny, gpu: {layers: {'0': 1}, tensor_split: [1, 2]}}}",
        "models.a.gpu.tensor_split: a map in gpu.layers contains the split",
    ),
    (
        "models: {a: {from: builtin:tiny, gpu: {tensor_split: [0, 0]}}}",
        "models.a.gpu.tensor_split: at least one share must be more than 0",
    ),
    (
        "models: {a: {from: builtin:tiny, template: {text: x, go: y}}}",
        "m.yaml:2:44: models.a.template: a template has exactly one of text, file and go (given: text, go)",
    ),
    (
        "models: {a: {from: builtin:tiny, template: {}}}",
        "a template has exactly one of text, file and go (given: none)",
    ),
    (
        "models: {a: {from: builtin:tiny, template: {go: x, syntax: jinja}}}",
        "`go` is a template in Go syntax (remove syntax: jinja)",
    ),
    (
        "models: {a: {from: builtin:tiny, template: {file: ./t}}}",
        "m.yaml:2:51: models.a.template.file: /srv/app/t does not exist",
    ),
]


@pytest.mark.parametrize(("text", "expected"), MISTAKES)
def test_what_does_not_agree_is_one_mistake_with_its_place(text: str, expected: str) -> None:
    said = problems(text)
    assert expected in said[0]
    # Both of two moves that lead to each other are named; everything else is said once.
    assert len(said) == 1 or "circle" in said[1]


AGREES = [
    "models: {}",
    "models:",
    "",
    M + "moved: [{from: x, to: y}, {from: y, to: a}]",
    M + "routes: {x: a, r: a}\nmoved: [{from: x, to: a}, {from: q, to: r, kind: route}, {from: a, to: r, kind: route}]",
    "auth: {keys: {l: {secret: {from_env: K}}}}\nmodels: {n: builtin:tiny}\n"
    "moved: [{from: l, to: m}, {from: m, to: n}, {from: k, to: l, kind: key}]",
    "server: {listen: ['127.0.0.1:0', '127.0.0.1:0', '[::1]:80', 'localhost:80', 'unix:./a']}",
    "server: {listen: ['0.0.0.0:80']}\nauth: {keys: {k: {secret: {from_env: K}}}}",
    M + "routes: {default: a}\nauth: {keys: {k: {secret: {from_env: K}, models: [a, default, 'b*', '*']}}}",
    "models: {a: {from: builtin:tiny, context: {flash_attention: off, kv: {k: q8_0}}}}",
    "models: {a: {from: builtin:tiny, context: {flash_attention: auto, kv: {v: q8_0}}}}",
    "models: {x-large: builtin:tiny}",
    P + "routes: {a: {to: [a], fallback: [a@box, b]}}",
]


@pytest.mark.parametrize("text", AGREES)
def test_what_agrees_is_taken(text: str) -> None:
    assert not problems(f"mullama: v1\n{text}")


WARNINGS = [
    (P + "routes: {r: a}", "m.yaml:2:9: peers.box: no route leads to this peer (routes: {NAME: MODEL@box})"),
    (
        "peers: {b: {url: 'http://h.example', key: {from_env: A}}}\n" + M + "routes: {r: m@b}",
        "m.yaml:2:18: peers.b.url: the key is sent without encryption (use https://)",
    ),
    (
        M + "auth: {keys: {k: {secret: {from_env: K}, models: ['c*']}}}",
        "m.yaml:3:51: auth.keys.k.models[0]: 'c*' matches no model or route",
    ),
    (M + "moved: [{from: x, to: y}]", "m.yaml:3:9: moved[0]: there is no model 'y'"),
    (
        M + "routes: {r: a}\nmoved: [{from: x, to: r}]",
        "m.yaml:4:9: moved[0]: there is no model 'r' (it is a route: add kind: route)",
    ),
    (
        "models: {a: 'https://example.org/a.gguf'}",
        "m.yaml:2:13: models.a.from: the file of a URL has no digest (add digest: sha256:…)",
    ),
    (
        "models: {a: {from: builtin:tiny, parameters: {num_keep: 4}}}",
        "m.yaml:2:57: models.a.parameters.num_keep: no effect: a prompt that is too long loses complete messages",
    ),
    (
        "models: {a: {from: builtin:tiny, limits: {rate_per_key: {requests: 9/m}}}}",
        "m.yaml:2:43: models.a.limits.rate_per_key: no effect without auth.keys (limits.rate is for all clients "
        "together)",
    ),
    (
        "server: {listen: ['unix:/run/m.sock'], tls: {cert: /c, key: /k}}",
        "m.yaml:2:40: server.tls: no effect: server.listen has unix sockets only",
    ),
]


@pytest.mark.parametrize(("text", "expected"), WARNINGS)
def test_what_is_odd_but_no_mistake_is_a_warning(text: str, expected: str) -> None:
    assert [str(warning) for warning in read(text).warnings] == [expected]


def test_a_wrong_part_does_not_hide_or_invent_mistakes_of_others() -> None:
    text = """
server: {listen: ["0.0.0.0:80"], limits: {queue: many}}
auth: {keys: {k: {secret: {from_env: K}, priority: high}}}
models: {a: {from: builtin:tiny, context: 3}, b: {like: a}}
routes: {default: a, other: c}
"""
    assert [line.split(": ")[1] for line in problems(text)] == [
        "server.limits.queue",
        "auth.keys.k.priority",
        "models.a.context",
        "routes.other",
    ]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h:1/v1/", "http://h:1"),
        ("HTTPS://H.example/V1x/v1", "https://H.example/V1x"),
        ("http://[::1]:80//", "http://[::1]:80"),
    ],
)
def test_the_address_of_a_peer_has_one_form(url: str, expected: str) -> None:
    assert read(f"peers: {{b: {{url: '{url}'}}}}\n" + M).manifest.peers["b"].url == expected
