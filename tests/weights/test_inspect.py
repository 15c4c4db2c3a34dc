"""What a header means: right models of many kinds are accepted with the right facts, killers are refused by name.

The killers are one-field changes that were seen to end a process of llama.cpp (abort or segmentation fault) while
it loaded the file or at its first decode.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from mullama.errors import BadWeights
from mullama.weights.facts import WeightFacts
from mullama.weights.inspect import inspect
from mullama.weights.tensors import BY_NUMBER
from tests import ggufs
from tests.ggufs import TOKENS, WIDTH, Entry, File, Stored, byte_vocabulary, f32, floats, ints, string, texts, u32
from tests.weights.mutations import mutations

BUILTIN = Path(str(resources.files("mullama.sources") / "builtin_models" / "tiny.gguf"))


def facts_of(file: File) -> WeightFacts:
    return inspect([ggufs.reader(file.bytes())])


def test_the_builtin_model_is_accepted_with_its_facts() -> None:
    facts = inspect([ggufs.reader(BUILTIN.read_bytes())])
    assert (facts.architecture, facts.quantization, facts.parameter_size) == ("llama", "Q8_0", "5.6M")
    assert (facts.layers, facts.heads, facts.kv_heads, facts.key_length) == (7, (4,), (2,), 64)
    assert (facts.embedding_length, facts.feed_forward, facts.train_context) == (256, (640,), 1024)
    assert (facts.vocabulary, facts.tokenizer, facts.pre_tokenizer) == (3072, "gpt2", "llama-bpe")
    assert facts.capabilities == ("completion", "tools", "thinking", "insert")
    assert facts.template.startswith("{%- if tools %}")
    assert facts.tied
    assert facts.size_bytes == BUILTIN.stat().st_size
    eos = facts.token("eos")
    assert eos is not None
    assert (eos.id, eos.text) == (2, "<|im_end|>")
    assert facts.token("unk") is None
    weights = facts.input_bytes + facts.output_bytes + sum(layer.weights for layer in facts.per_layer)
    assert weights == sum(tensor.bytes for tensor in facts.tensors)
    assert facts.metadata["tokenizer.ggml.tokens"] == {"array": "string", "length": 3072}


def gpt2(file: File) -> File:
    """The same model with a vocabulary of merges."""
    file = file.with_key("tokenizer.ggml.model", string("gpt2")).without_key("tokenizer.ggml.scores")
    file = file.without_key("tokenizer.ggml.token_type")
    return file.with_key("tokenizer.ggml.merges", texts(["a b", "c d"]))


def renamed(tokens: dict[int, bytes]) -> Entry:
    words = byte_vocabulary()
    for number, text in tokens.items():
        words[number] = text
    return texts(words)


def small(architecture: str = "llama") -> File:
    return ggufs.model(architecture)


def test_grouped_heads_and_own_head_lengths_are_facts() -> None:
    file = small("qwen3").with_key("qwen3.attention.key_length", u32(32))
    file = file.with_key("qwen3.attention.value_length", u32(32)).with_key("qwen3.rope.dimension_count", u32(32))
    facts = facts_of(file)
    assert [(layer.key, layer.value) for layer in facts.per_layer] == [(64, 64)] * 2


def test_heads_that_differ_by_layer_are_kept_by_layer() -> None:
    file = small("deci").with_key("deci.attention.head_count", ints([4, 0]))
    file = file.with_key("deci.attention.head_count_kv", ints([2, 0]))
    facts = facts_of(file)
    assert facts.heads == (4, 0)
    assert [layer.key for layer in facts.per_layer] == [32, 0]


@pytest.mark.parametrize(
    ("architecture", "pattern", "slides"),
    [
        ("gemma3", None, [True] * 5 + [False, True]),
        ("gpt-oss", None, [True, False, True, False, True, False, True]),
        ("gemma2", u32(3), [True, True, False, True, True, False, True]),
        ("mimo2", ints([1, 0, 1, 0, 0, 0, 1]), [True, False, True, False, False, False, True]),
        ("modern-bert", None, [False] * 7),
        ("llama", None, [False] * 7),
    ],
)
def test_sliding_layers_follow_the_architecture_or_the_file(
    architecture: str, pattern: Entry | None, slides: list[bool]
) -> None:
    file = ggufs.model(architecture, layers=7).with_key(f"{architecture}.attention.sliding_window", u32(512))
    if pattern is not None:
        file = file.with_key(f"{architecture}.attention.sliding_window_pattern", pattern)
    facts = facts_of(file)
    assert [layer.slides for layer in facts.per_layer] == slides
    assert facts.window == (0 if architecture == "llama" else 512)


def test_a_recurrent_model_keeps_a_state_and_no_cache() -> None:
    file = small("mamba").without_key("mamba.attention.head_count").without_key("mamba.attention.head_count_kv")
    for name, value in (("conv_kernel", 4), ("inner_size", 128), ("state_size", 16), ("time_step_rank", 4)):
        file = file.with_key(f"mamba.ssm.{name}", u32(value))
    facts = facts_of(file)
    assert [(layer.key, layer.state) for layer in facts.per_layer] == [(0, 3 * 128 + 16 * 128)] * 2


def test_a_hybrid_model_has_both_kinds_of_layers() -> None:
    file = ggufs.model("qwen3next", layers=8)
    for name, value in (("conv_kernel", 4), ("inner_size", 128), ("state_size", 16), ("group_count", 2)):
        file = file.with_key(f"qwen3next.ssm.{name}", u32(value))
    facts = facts_of(file)
    assert [bool(layer.key) for layer in facts.per_layer] == [False, False, False, True] * 2
    assert facts.per_layer[0].state == 3 * (128 + 2 * 2 * 16) + 16 * 128


def test_latent_attention_caches_keys_only() -> None:
    file = ggufs.model("deepseek2", kv_heads=1)
    for name, value in (("key_length", 48), ("value_length", 32), ("key_length_mla", 24), ("value_length_mla", 16)):
        file = file.with_key(f"deepseek2.attention.{name}", u32(value))
    assert [(layer.key, layer.value) for layer in facts_of(file).per_layer] == [(48, 0)] * 2


def test_layers_that_only_draft_or_share_keep_no_cache_of_their_own() -> None:
    drafting = ggufs.model("glm4moe", layers=3).with_key("glm4moe.nextn_predict_layers", u32(1))
    assert [bool(layer.key) for layer in facts_of(drafting).per_layer] == [True, True, False]
    sharing = ggufs.model("gemma4", layers=3).with_key("gemma4.attention.shared_kv_layers", u32(2))
    assert [bool(layer.key) for layer in facts_of(sharing).per_layer] == [True, False, False]


def bert() -> File:
    file = small("bert").with_key("bert.pooling_type", u32(2)).with_key("bert.attention.causal", Entry(7, False))
    file = file.with_key("tokenizer.ggml.model", string("bert")).with_key("tokenizer.ggml.unknown_token_id", u32(0))
    return file.with_key("tokenizer.ggml.token_type", ints([1] * TOKENS)).without_key("tokenizer.ggml.scores")


def test_an_embedding_model_says_so() -> None:
    facts = facts_of(bert())
    assert (facts.capabilities, facts.pooling, facts.causal, facts.cached) == (("embedding",), "cls", False, False)
    assert all(layer.key == 0 for layer in facts.per_layer)
    assert facts_of(small().with_key("llama.pooling_type", u32(3))).capabilities == ("embedding",)
    assert facts_of(small().with_key("llama.pooling_type", u32(4))).capabilities == ("rerank",)
    assert facts_of(small().with_key("llama.pooling_type", u32(0))).capabilities == ("completion",)


@pytest.mark.parametrize(
    ("template", "capabilities"),
    [
        ("", ("completion",)),
        ("{{ messages }}", ("completion",)),
        ("{% if tools %}x{% endif %}", ("completion", "tools")),
        ("{{ message.tool_calls }}", ("completion", "tools")),
        ("{% if enable_thinking %}", ("completion", "thinking")),
        ("stools and overthinking", ("completion",)),
        ("<think></think>{{ tools }}", ("completion", "tools", "thinking")),
    ],
)
def test_what_the_template_mentions_is_what_the_model_can_do(template: str, capabilities: tuple[str, ...]) -> None:
    assert facts_of(small().with_key("tokenizer.chat_template", string(template))).capabilities == capabilities


def test_named_templates_and_fim_tokens_are_found() -> None:
    file = small().with_key("tokenizer.chat_template.tool_use", string("{{ tools }}"))
    file = file.with_key(
        "tokenizer.ggml.tokens", renamed({3: b"<|fim_prefix|>", 4: b"<|fim_suffix|>", 5: b"<|fim_middle|>"})
    )
    facts = facts_of(gpt2(file))
    assert facts.templates == (("tool_use", "{{ tools }}"),)
    assert facts.capabilities == ("completion", "tools", "insert")
    assert [facts.token(role).id for role in ("fim_pre", "fim_suf", "fim_mid")] == [3, 4, 5]  # type: ignore[union-attr]


def test_projectors_and_adapters_are_told_from_models() -> None:
    projector = File({"general.architecture": string("clip")}, {"v.patch_embd.weight": Stored((32, 4))})
    assert facts_of(projector).role == "projector"
    adapter = small().with_key("general.type", string("adapter")).with_key("adapter.type", string("lora"))
    assert facts_of(adapter).role == "adapter"


def test_a_split_set_is_one_model_and_every_part_is_needed_in_order() -> None:
    whole = small()
    parts = [ggufs.reader(raw) for raw in ggufs.split(whole, 3)]
    facts = inspect(parts)
    assert facts.parts == 3
    assert facts.parameter_count == facts_of(whole).parameter_count
    assert facts.size_bytes == sum(size for _, size in parts)
    assert {tensor.part for tensor in facts.tensors} == {0, 1, 2}
    for wrong, words in [
        (parts[:2], "one of 3 parts, 2 were given"),
        ([parts[0], parts[2], parts[1]], "file 2 of the set is not part 2 of 3"),
        ([parts[0], parts[1], parts[1]], "file 3 of the set is not part 3 of 3"),
        ([ggufs.reader(whole.bytes()), parts[1]], "one of 1 parts"),
    ]:
        with pytest.raises(BadWeights, match=words):
            inspect(wrong)


KILLERS = [
    ("no layers", small().with_key("llama.block_count", u32(0)), "llama.block_count is 0"),
    ("2^31 layers", small().with_key("llama.block_count", u32(2**31)), "llama.block_count is 2147483648"),
    ("513 layers", small().with_key("llama.block_count", u32(513)), "not between 1 and 512"),
    *(
        (f"epsilon {value}", small().with_key("llama.attention.layer_norm_rms_epsilon", f32(value)), "rms_epsilon is")
        for value in (-1.0, float("nan"), float("-inf"))
    ),
    ("odd rotation", small("qwen2").with_key("qwen2.rope.dimension_count", u32(7)), "rope.dimension_count is 7"),
    ("wide rotation", small("qwen2").with_key("qwen2.rope.dimension_count", u32(64)), "at most the head length 16"),
    ("rope scaling", small().with_key("llama.rope.scaling.type", string("foo")), "rope.scaling.type is 'foo'"),
    ("kv heads", small().with_key("llama.attention.head_count_kv", u32(3)), "4 attention heads for 3"),
    ("expert use", small().with_key("llama.expert_used_count", u32(2)), "2 of 0 experts"),
    ("experts unused", small().with_key("llama.expert_count", u32(8)), "0 of 8 experts"),
    ("experts", small().with_key("llama.expert_count", u32(2000)), "llama.expert_count is 2000"),
    ("draft layers", small().with_key("llama.nextn_predict_layers", u32(3)), "nextn_predict_layers is 3"),
    ("odd head", small().with_key("llama.attention.head_count", u32(6)), "6 attention heads do not divide"),
    ("no heads", small().with_key("llama.attention.head_count", u32(0)), "head_count is missing or 0"),
    ("alignment", small().with_key("general.alignment", u32(8)).without_key("general.name"), "not a multiple of 32"),
    ("no tokenizer", small().with_key("tokenizer.ggml.model", string("none")), "no vocabulary"),
    ("whitespace", gpt2(small()).with_key("tokenizer.ggml.pre", string("whitespace")), "double space"),
    ("rwkv named", gpt2(small()).with_key("tokenizer.ggml.model", string("rwkv")), "'rwkv' tokenizer needs a token"),
    ("plamo named", gpt2(small().with_key("tokenizer.ggml.tokens", renamed({3: b"x"}))).with_key(
        "tokenizer.ggml.model", string("plamo2")), "<0x00>"),
    ("llama named", small().with_key("tokenizer.ggml.tokens", renamed({99: b"zzz"})).with_key(
        "tokenizer.ggml.token_type", ints([1] * TOKENS)), "needs the byte token <0x60>"),
    ("bert named", small().with_key("tokenizer.ggml.model", string("bert")), "token 3 is of byte type, which a 'bert'"),
    ("rwkv bytes", small().with_key("tokenizer.ggml.tokens", renamed({0: b"\\n"})).with_key(
        "tokenizer.ggml.model", string("rwkv")), "token 3 is of byte type, which a 'rwkv'"),
    ("no first token", gpt2(small()).without_key("tokenizer.ggml.bos_token_id").with_key(
        "tokenizer.ggml.model", string("gemma4")), "'gemma4' tokenizer needs tokenizer.ggml.bos_token_id"),
    ("no last token", gpt2(small()).without_key("tokenizer.ggml.eos_token_id").with_key(
        "tokenizer.ggml.model", string("gemma4")).with_key("tokenizer.ggml.add_eos_token", Entry(7, True)),
        "needs tokenizer.ggml.eos_token_id"),
    ("t5 named", gpt2(small()).with_key("tokenizer.ggml.model", string("t5")), "'t5' tokenizer needs"),
    ("all equal", gpt2(small()).with_key("tokenizer.ggml.tokens", texts([b"x"] * TOKENS)), "are both 'x'"),
    ("two equal", gpt2(small()).with_key("tokenizer.ggml.tokens", renamed({7: b"a", 9: b"a"})), "tokens 7 and 9"),
    ("not text", small().with_key("tokenizer.ggml.tokens", renamed({TOKENS - 1: b"\xff"})), "token 259 .* UTF-8"),
    ("half a letter", small().with_key("tokenizer.ggml.tokens", renamed({TOKENS - 1: b"\xe2\x96"})), "token 259"),
    ("byte -1", small().with_key("tokenizer.ggml.tokens", renamed({9: b"<0x-1>"})), "token 9 .*<0x-1>"),
    ("byte 300", small().with_key("tokenizer.ggml.tokens", renamed({9: b"<0x300>"})), "token 9 .*<0x300>"),
    ("few scores", small().with_key("tokenizer.ggml.scores", floats([0.0] * 5)), "5 elements for 260 tokens"),
    ("few types", small().with_key("tokenizer.ggml.token_type", ints([1] * 5)), "5 elements for 260 tokens"),
    ("no scores", small().without_key("tokenizer.ggml.scores"), "scores, which is missing"),
    *(
        (f"{name} as {BY_NUMBER[number].name}", small().with_tensor(name, Stored(shape, number)), "not a type for")
        for name, shape in (("blk.0.attn_q.weight", (WIDTH, WIDTH)), ("blk.1.ffn_norm.weight", (WIDTH,)))
        for number in (24, 25, 26, 27, 28)
    ),
    ("norm as F16", small().with_tensor("output_norm.weight", Stored((WIDTH,), 1)), "llama.cpp needs F32"),
    ("norm as Q8_0", small().with_tensor("output_norm.weight", Stored((WIDTH,), 8)), "llama.cpp needs F32"),
    ("embedding as I32", small().with_tensor("token_embd.weight", Stored((WIDTH, TOKENS), 26)), "not a type for"),
    ("dot form", small().with_tensor("blk.0.ffn_up.weight", Stored((WIDTH, 128), 9)), "Q8_1"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "words"), [pytest.param(f, w, id=name) for name, f, w in KILLERS])
def test_what_would_end_native_code_is_refused_with_key_and_numbers(file: File, words: str) -> None:
    with pytest.raises(BadWeights, match=words):
        facts_of(file)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (small("llama7"), "llama7.*did you mean llama"),
        (small().without_key("general.architecture"), "general.architecture is missing"),
        (small().with_key("llama.context_length", u32(7)), "context_length is 7"),
        (small().without_key("llama.context_length"), "llama.context_length is missing"),
        (small().with_key("llama.context_length", string("x")), "llama.context_length is str, not a whole number"),
        (small().with_key("llama.embedding_length", u32(0)), "embedding_length is 0"),
        (small().with_key("llama.attention.head_count", ints([4])), "1 elements for 2 layers"),
        (small().with_key("tokenizer.ggml.bos_token_id", u32(260)), "bos_token_id is 260, the vocabulary has 260"),
        (small().with_key("tokenizer.ggml.model", string("sentence")), "tokenizer.ggml.model is 'sentence'"),
        (small().without_key("tokenizer.ggml.tokens"), "tokens is missing"),
        (gpt2(small()).without_key("tokenizer.ggml.merges"), "needs tokenizer.ggml.merges"),
        (small().with_key("tokenizer.chat_template", string("x" * 300_000)), "chat_template has 300000 bytes"),
        (small().with_key("llama.pooling_type", u32(9)), "pooling_type is 9"),
        (small().with_tensor("token_embd.weight", Stored((WIDTH, 300))), "300 rows for a vocabulary of 260"),
        (small().with_tensor("blk.2.x.weight", Stored((32, 2))), "layer 2, the model has 2"),
        (File(small().keys), "no tensors"),
        (small().with_tensor("v.patch_embd.weight", Stored((32, 2))), "projector inside the model"),
        (small().with_key("general.type", string("imatrix")), "'imatrix': this file is not a model"),
        (File({"general.architecture": string("clip")}), "no tensors"),
    ],
)
def test_a_file_that_cannot_be_served_is_refused_with_the_reason(file: File, words: str) -> None:
    with pytest.raises(BadWeights, match=words):
        facts_of(file)


def test_empty_tokens_may_repeat_because_llama_cpp_names_them() -> None:
    assert facts_of(gpt2(small().with_key("tokenizer.ggml.tokens", renamed({3: b"", 4: b""})))).vocabulary == TOKENS


def test_a_token_id_of_minus_one_means_none() -> None:
    assert facts_of(small().with_key("tokenizer.ggml.padding_token_id", u32(2**32 - 1))).token("pad") is None


@pytest.mark.parametrize("base", [small(), gpt2(small("qwen2")), bert()], ids=["llama", "qwen2", "bert"])
@pytest.mark.timeout(60)  # more than a thousand headers
def test_one_field_changes_never_raise_anything_but_our_error(base: File) -> None:
    refused = accepted = 0
    for _, file in mutations(base):
        try:
            facts_of(file)
        except BadWeights:
            refused += 1
        else:
            accepted += 1
    assert refused > 200
    assert accepted > 200
