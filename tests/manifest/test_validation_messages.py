"""What the types object to, in plain words: no mistake is shown as the library words it."""

from __future__ import annotations

import pytest

from tests.manifest.builders import problems

A = "models: {a: {from: builtin:tiny, %s}}"

GOLDEN = [
    ("modles: {}", "m.yaml:2:1: modles: no such field (did you mean models?)"),
    ("apiVersion: v1", "m.yaml:2:1: apiVersion: no such field (keys that begin with x- are ignored)"),
    ("sync: {wach: true}", "m.yaml:2:8: sync.wach: no such field (did you mean watch?)"),
    ("sync: {zzz: true}", "m.yaml:2:8: sync.zzz: no such field (known keys: watch, git)"),
    (A % "contxt: {}", "m.yaml:2:34: models.a.contxt: no such field (did you mean context?)"),
    (A % "context: {kv: {q: f16}}", "m.yaml:2:49: models.a.context.kv.q: no such field (known keys: k, v)"),
    (
        A % "context: {size: '8'}",
        "m.yaml:2:50: models.a.context.size: expected a whole number, got '8' (remove the quotes)",
    ),
    (A % "context: {size: 8.5}", "m.yaml:2:50: models.a.context.size: expected a whole number, got 8.5"),
    (A % "context: {size: true}", "m.yaml:2:50: models.a.context.size: expected a whole number, got true"),
    (A % "context: {size: 0}", "m.yaml:2:50: models.a.context.size: must be at least 1, not 0"),
    (
        A % "context: {size: 99999999999}",
        "m.yaml:2:50: models.a.context.size: must be at most 2147483647, not 99999999999",
    ),
    (A % "context: 3", "m.yaml:2:43: models.a.context: expected a map, got 3"),
    (A % "context: {pooling: men}", "expected one of none, mean, cls, last, rank, got 'men' (did you mean mean?)"),
    (A % "task: speech", "speech is not generated"),
    (A % "context: {flash_attention: maybe}", "expected one of auto, on, off, got 'maybe'"),
    (A % "context: {rope: {base: 0}}", "models.a.context.rope.base: must be more than 0, not 0"),
    (
        A % "parameters: {temperature: hot}",
        "m.yaml:2:60: models.a.parameters.temperature: expected a number, got 'hot'",
    ),
    (A % "parameters: {temperature: '0.3'}", "expected a number, got '0.3' (remove the quotes)"),
    (A % "parameters: {temperature: -1}", "must be at least 0, not -1"),
    (A % "parameters: {top_p: 2}", "models.a.parameters.top_p: must be at most 1, not 2"),
    (A % "parameters: {mirostat: 3}", "models.a.parameters.mirostat: expected one of 0, 1, 2, got 3"),
    (A % "parameters: {mirostat: true}", "models.a.parameters.mirostat: expected a number, not true or false"),
    (
        A % "parameters: {stop: x}",
        "m.yaml:2:53: models.a.parameters.stop: expected a list, got 'x' (put brackets around it)",
    ),
    (A % "parameters: {stop: ['']}", "m.yaml:2:54: models.a.parameters.stop[0]: must not be empty"),
    (
        A % "parameters: {stop: [a, 3]}",
        "m.yaml:2:57: models.a.parameters.stop[1]: expected text, got 3 (put quotes around it)",
    ),
    (A % f"parameters: {{stop: [{'a, ' * 16}a]}}", "models.a.parameters.stop: must have at most 16 entries"),
    (A % f"parameters: {{stop: [{'a' * 300}]}}", "models.a.parameters.stop[0]: must have at most 256 characters"),
    (A % "parameters: {num_ctx: big}", "m.yaml:2:56: models.a.context.size: expected a whole number, got 'big'"),
    (A % "memory: {mmap: yes}", "models.a.memory.mmap: expected true or false, got 'yes' (write true)"),
    (A % "memory: {mmap: True}", "models.a.memory.mmap: expected true or false, got 'True' (write true)"),
    (A % "memory: {mlock: 0}", "models.a.memory.mlock: expected true or false, got 0 (write false)"),
    (A % "gpu: {layers: -1}", 'models.a.gpu.layers: expected auto, all, a number of layers, or a map such as {"0": 30'),
    (A % "gpu: {layers: {}}", "models.a.gpu.layers: expected auto, all, a number of layers"),
    (A % "gpu: {layers: {a: 1}}", "expected device numbers with layer counts, such as {\"0\": 30}, not 'a'"),
    (A % "gpu: {layers: {0: -1}}", "expected device numbers with layer counts, such as {\"0\": 30}, not '0'"),
    (A % "gpu: {tensor_split: [3, a]}", "m.yaml:2:58: models.a.gpu.tensor_split[1]: expected a number, got 'a'"),
    (A % "system: 12", "m.yaml:2:42: models.a.system: expected text, got 12 (put quotes around it)"),
    (A % "system: [x]", "models.a.system: expected text, got a list"),
    (A % "digest: abc", "models.a.digest: 'abc' has the wrong form (sha256: and 64 lower-case hex digits)"),
    (A % "dialects: []", "models.a.dialects: must have at least 1 entries"),
    (
        A % "dialects: [openia]",
        "models.a.dialects[0]: expected one of ollama, openai, anthropic, got 'openia' (did you",
    ),
    (
        A % "messages: [{role: bot, content: hi}]",
        "models.a.messages[0].role: expected one of system, user, assistant, got",
    ),
    (A % "messages: [{role: user}]", "m.yaml:2:45: models.a.messages[0].content: is required"),
    (A % "messages: [hi]", "models.a.messages[0]: expected a map, got 'hi'"),
    (A % "adapters: {from: x.gguf}", "models.a.adapters: expected a list, got a map"),
    (A % "residency: {ttl: soon}", "models.a.residency.ttl: expected a duration, such as 30s, 10m, 1h30m or never"),
    (A % "residency: {ttl: -1}", "models.a.residency.ttl: must be at least 0, not -1"),
    (A % "residency: {ttl: [1]}", "models.a.residency.ttl: expected a number, got a list"),
    (A % "limits: {timeout: 0s}", "models.a.limits.timeout: must be more than 0, not 0"),
    (A % "probe: {expect: '('}", "models.a.probe.expect: not a regular expression: missing ), unterminated subpattern"),
    (A % "requires: [tool]", "models.a.requires[0]: expected one of completion, tools, thinking, vision, audio"),
    (
        A % "task: chatting",
        "models.a.task: expected one of chat, transcription, embedding, rerank, got 'chatting' (did you mean chat?)",
    ),
    ("models: {a: {}}", "m.yaml:2:10: models.a.from: is required (for example builtin:tiny)"),
    ("models: {a: {from: }}", "m.yaml:2:10: models.a.from: is required"),
    ("models: {a: {from: 3}}", "m.yaml:2:20: models.a.from: expected text, got 3 (put quotes around it)"),
    ("models: {a: 3}", "m.yaml:2:13: models.a.from: expected text, got 3"),
    ("models: {a: [x]}", "m.yaml:2:10: models.a: expected a map, got a list"),
    ("models: {a: ''}", "m.yaml:2:13: models.a.from: a source must be one line of text (for example builtin:tiny"),
    ("models: {a: 'hf:x'}", "models.a.from: 'hf:x' does not name a repository (hf:org/repo[:file|:QUANT][@revision])"),
    ("models: {a: 's3://x/y.gguf'}", "models.a.from: 's3://x/y.gguf' is not a URL that mullama downloads from"),
    (
        "models: {a: {from: builtin:tiny, adapters: [{from: 'hf:x'}]}}",
        "models.a.adapters[0].from: 'hf:x' does not name",
    ),
    ("models: [a]", "m.yaml:2:1: models: expected a map of names to models"),
    ("models: a", "models: expected a map of names to models"),
    ("server: 3", "m.yaml:2:9: server: expected a map, got 3"),
    ("server: {listen: []}", "server.listen: must have at least 1 entries"),
    ("server: {listen: '127.0.0.1:80'}", "server.listen: expected a list, got '127.0.0.1:80' (put brackets around it)"),
    ("server: {limits: {body: 8 apples}}", "server.limits.body: expected a size, such as 512MiB, 8GiB or a number of"),
    ("server: {limits: {body: 1}}", "server.limits.body: must be at least 1024, not 1"),
    ("server: {stored: {size: -1}}", "server.stored.size: must be at least 0, not -1"),
    ("server: {stored: {size: 9007199254740992}}", "server.stored.size: must be at most 9007199254740991"),
    ("server: {stored: {size: 90000000000GiB}}", "server.stored.size: must be at most 9007199254740991"),
    ("server: {resumable: {size: 17GiB}}", "server.resumable.size: must be at most 17179869184, not 18253611008"),
    ("observability: {captures: {size: 2GiB}}", "captures.size: must be at most 1073741824, not 2147483648"),
    (
        "observability: {otlp: {endpoint: 'http://c', interval: 0s}}",
        "observability.otlp.interval: must be at least 1, not 0.0",
    ),
    ("server: {limits: {body: -1MiB}}", "server.limits.body: expected a size"),
    ("server: {limits: {body: true}}", "server.limits.body: expected a whole number, got true"),
    (
        "sources: {hf: {endpoint: ftp://x}}",
        "sources.hf.endpoint: 'ftp://x' has the wrong form (an address that",
    ),
    (
        "sources: {hf: {endpoint: 'https://me:s3cret@hub.example'}}",
        "sources.hf.endpoint: the address of a hub has no user name (token: {from_env: HF_TOKEN})",
    ),
    (
        "sources: {hf: {endpoint: 'https://hub.example/?token=s3cret'}}",
        "sources.hf.endpoint: 'https://hub.example/?token=***' is not the address of a hub",
    ),
    ("sources: {hf: {endpoint: 'https://'}}", "sources.hf.endpoint: 'https://' is not the address of a hub"),
    ("sources: {parallel: 99}", "sources.parallel: must be at most 16, not 99"),
    ("hardware: {budget: {ram: 120%}}", "hardware.budget.ram: expected a size, such as 512MiB"),
    ("hardware: {budget: {ram: -1}}", "hardware.budget.ram: must be at least 0, not -1"),
    (
        "hardware: {budget: {gpu: {'?': 1GiB}}}",
        "hardware.budget.gpu.?: '?' has the wrong form (a device by its number or name",
    ),
    ("hardware: {rpc: [gpu-box]}", "m.yaml:2:18: hardware.rpc[0]: 'gpu-box' is not the address of an RPC server"),
    ("hardware: {rpc: ['a:0']}", "m.yaml:2:18: hardware.rpc[0]: 0 is not a port to connect to"),
    ("hardware: {rpc: ['a:99999']}", "m.yaml:2:18: hardware.rpc[0]: 99999 is not a port"),
    ("hardware: {rpc: ['[::1]:5']}", "hardware.rpc[0]: '[::1]:5' is an IPv6 address, which llama.cpp's RPC cannot use"),
    ("hardware: {rpc: ['a:5', 'a:5']}", "m.yaml:2:25: hardware.rpc[1]: a:5 is listed twice"),
    ("routes: {r: 3}", "m.yaml:2:13: routes.r: expected text, got 3 (put quotes around it)"),
    ("routes: {r: {to: [{modl: a}]}}", "m.yaml:2:20: routes.r.to[0].modl: no such field (did you mean model?)"),
    ("routes: [a]", "routes: expected a map, got a list"),
    ("moved: [{from: a}]", "m.yaml:2:9: moved[0].to: is required"),
    ("moved: {from: a, to: b}", "moved: expected a list, got a map"),
    ("metadata: {labels: {v: 1.10}}", "metadata.labels.v: expected text, got 1.1 (put quotes around it)"),
    ("defaults: 3", "m.yaml:2:11: defaults: expected a map of model fields"),
    (
        "models: {a: {from: 'builtin:tiny', template_arguments: {enable_thinkin: true}}}",
        "template_arguments.enable_thinkin: is not an argument of chat templates (did you mean enable_thinking",
    ),
    (
        "models: {a: {from: 'builtin:tiny', thinking: {default: lots}}}",
        "models.a.thinking.default: expected one of none,",
    ),
    (
        "observability: {otlp: {endpoint: localhost}}",
        "observability.otlp.endpoint: 'localhost' is not the address of a collector (https://otlp.example.org:4318)",
    ),
    (
        "observability: {otlp: {endpoint: 'http://u:p@a:4318'}}",
        "observability.otlp.endpoint: the address of a collector has no user name",
    ),
    (
        "observability: {otlp: {endpoint: 'http://a:4318/v1/traces'}}",
        "observability.otlp.endpoint: the address of a collector ends before /v1/traces and /v1/metrics",
    ),
    (
        "observability: {otlp: {endpoint: 'http://a:4318', sample: 2}}",
        "observability.otlp.sample: ",
    ),
    (
        "observability: {otlp: {endpoint: 'http://a:4318', headers: {X: {}}}}",
        "observability.otlp.headers.X: expected one of from_env and from_file",
    ),
    (
        "observability: {otlp: {endpoint: 'http://a:4318', headers: {Host: {from_env: A}}}}",
        "the header Host is set by the server",
    ),
    (
        "observability: {otlp: {endpoint: 'http://a:4318', headers: {'a b': {from_env: A}}}}",
        "'a b' is not the name of a header",
    ),
    (
        "observability: {logs: {parts: {schedular: debug}}}",
        "m.yaml:2:32: observability.logs.parts.schedular: no such field (did you mean scheduler?)",
    ),
    (
        "observability: {logs: {parts: {http: warn}}}",
        "observability.logs.parts.http: expected one of debug, info, warning, error, got 'warn'",
    ),
    (
        "observability: {webhooks: [{url: ftp://a}]}",
        "m.yaml:2:34: observability.webhooks[0].url: 'ftp://a' is not the address of a webhook",
    ),
    (
        "observability: {webhooks: [{url: 'https://u:p@a'}]}",
        "observability.webhooks[0].url: the address of a webhook has no user name (an address with a secret is url:",
    ),
    *(
        (
            f"observability: {{webhooks: [{{url: 'http://{host}/x'}}]}}",
            f"m.yaml:2:34: observability.webhooks[0].url: {host.strip('[]')} is an address of the link",
        )
        for host in ("169.254.169.254", "[fe80::1]", "[fd00:ec2::254]", "[::ffff:169.254.169.254]", "2852039166")
    ),
    (
        "observability: {otlp: {endpoint: 'http://169.254.169.254:4318'}}",
        "observability.otlp.endpoint: 169.254.169.254 is an address of the link (clouds serve the credentials of a",
    ),
    (A % "limits: {rate: {requests: 60}}", "models.a.limits.rate.requests: expected a rate, such as 60/m"),
    (
        "auth: {keys: {k: {secret: {from_env: K}, quota: {tokens: 1.5}}}}",
        "auth.keys.k.quota.tokens: expected a rate, such as 60/m, 200k/h or 5M/d",
    ),
    (
        A % "limits: {rate: {requests: 1.5/m}}",
        "models.a.limits.rate.requests: expected a rate of a whole number, such as 90/h in place of 1.5/m",
    ),
    (
        "include: https://h.example.org/m.yaml",
        "m.yaml:2:10: include: 'https://h.example.org/m.yaml' is neither a file of this machine nor one of a hub",
    ),
    (
        "observability: {webhooks: [{url: {}}]}",
        "observability.webhooks[0].url: expected one of from_env and from_file",
    ),
    (
        "observability: {webhooks: [{url: 'https://a', events: [aplied]}]}",
        "observability.webhooks[0].events[0]: expected one of applied, ",
    ),
    (
        "observability: {webhooks: [{url: 'https://a', form: pagerduty}]}",
        "observability.webhooks[0]: PagerDuty needs a routing key (secret: {from_env: NAME})",
    ),
    ("observability: {logs: {level: loud}}", "observability.logs.level: expected one of debug, info, warning, error"),
]


@pytest.mark.parametrize(("text", "expected"), GOLDEN)
def test_a_wrong_value_is_named_with_its_place_and_what_would_be_right(text: str, expected: str) -> None:
    said = "\n".join(problems(text))
    assert expected in said
    for word in ("Input should", "pydantic", "http://", "valid dictionary", "Value error", "validation"):
        assert word not in said


VERSIONS = [
    ("", "m.yaml:1:1: the file is empty (begin with `mullama: v1` and `models:`)"),
    ("# nothing\n", "m.yaml:1:1: the file is empty"),
    ("models: {}\nx-mullama: 1", "m.yaml:1:1: mullama: the line `mullama: v1` is missing (mullama: v1)"),
    ("mullama: v2\n", "m.yaml:1:10: mullama: this version of mullama reads v1 (mullama: v1)"),
    ("mullama: 1\n", "m.yaml:1:10: mullama: this version of mullama reads v1"),
    ("[mullama]", "m.yaml:1:1: expected a map (begin with"),
    ("mullama", "m.yaml:1:1: expected a map"),
]


@pytest.mark.parametrize(("text", "expected"), VERSIONS)
def test_what_is_no_manifest_is_told_how_one_begins(text: str, expected: str) -> None:
    assert expected in problems(text.encode())[0]


SECRETS = [
    "secret: sk-canary",
    "secret: [sk-canary]",
    "secret: {from_env: 'sk-canary'}",
    "secret: {from_env: [sk-canary]}",
    "secret: {from_file: {a: sk-canary}}",
    "secret: {from_env: K, optional: sk-canary}",
    "secret: 12345678",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("key", ["k", "a.b.c"])
def test_a_secret_that_was_written_down_is_refused_and_never_shown(secret: str, key: str) -> None:
    said = "\n".join(problems(f"auth: {{keys: {{{key}: {{{secret}}}}}}}"))
    assert f"auth.keys.{key}.secret" in said
    assert "canary" not in said
    assert "12345678" not in said


def test_a_token_that_was_written_down_is_refused_and_never_shown() -> None:
    assert problems("sources: {hf: {token: hf_canary}}") == [
        "m.yaml:2:23: sources.hf.token: expected a reference to a secret, not the secret itself "
        "({from_env: NAME} or {from_file: PATH})"
    ]


def test_more_than_200_mistakes_are_counted_and_not_all_said() -> None:
    said = problems("models:\n" + "".join(f"  m{i}: {{from: 3}}\n" for i in range(300)))
    assert len(said) == 201
    assert said[-1] == "and 100 more problems"


def test_mistakes_are_said_in_the_order_of_the_text() -> None:
    said = problems("models: {b: {from: 3}, a: {from: 4}}\nsync: {wach: 1}\nserver: 3\n")
    assert [line.split(" ")[0] for line in said] == ["m.yaml:2:20:", "m.yaml:2:34:", "m.yaml:3:8:", "m.yaml:4:9:"]
