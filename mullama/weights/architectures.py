"""The architectures that llama.cpp loads, and their rules for memory. The data is of llama.cpp b-2026-08.

A file does not say which layers have a sliding window or keep no cache; llama.cpp decides that by the architecture.
"""

from __future__ import annotations

from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


KNOWN: Final = _words("""
    afmoe apertus arcee arctic arwkv7 baichuan bailingmoe bailingmoe2 bailingmoe3 bert bitnet bloom chameleon
    chatglm codeshell cogvlm cohere2 cohere2moe command-r dbrx deci deepseek deepseek2 deepseek2-ocr deepseek32
    deepseek4 dflash dots1 dots3note dream eagle3 ernie4_5 ernie4_5-moe eurobert exaone exaone-moe exaone4 falcon
    falcon-h1 gemma gemma-embedding gemma2 gemma3 gemma3n gemma4 gemma4-assistant glm-dsa glm4 glm4moe glm5-next
    gpt-oss gpt2 gptj gptneox granite granite_swa granitehybrid granitemoe graniteswitch grok grovemoe hrm_text
    hunyuan-dense hunyuan-moe hunyuan_vl hy_v3 hy_v4 internlm2 jais jais2 jamba jina-bert-v2 jina-bert-v3 kimi-k3
    kimi-linear laguna lfm2 lfm2moe llada llada-moe llama llama-embed llama4 maincoder mamba mamba2 maple mellum
    mimo2 minicpm minicpm3 minimax-01 minimax-m2 minimax-m3 mistral3 mistral4 modern-bert mpt muse-glimmer
    nanbeige nemotron nemotron_h nemotron_h_moe neo-bert nomic-bert nomic-bert-moe olmo olmo2 olmoe openelm orion
    paddleocr pangu-embedded phi2 phi3 phimoe plamo plamo2 plamo3 plm pockettts qwen qwen2 qwen2moe qwen2vl qwen3
    qwen35 qwen35moe qwen3moe qwen3next qwen3tts qwen3vl qwen3vlmoe qwen4exp refact rnd1 rwkv6 rwkv6qwen2 rwkv7
    seed_oss smallthinker smollm3 spark2_5 stablelm starcoder starcoder2 step35 t5 t5encoder talkie
    wavtokenizer-dec xverse
    """)

PROJECTOR: Final = "clip"

DRAFTERS: Final = _words("dflash eagle3 gemma4-assistant")
"""Architectures that guess the tokens of another model."""

VOCODERS: Final = _words("wavtokenizer-dec")
"""Architectures that turn the tokens of another model into sound."""

NO_CACHE: Final = _words("""
    bert dream eurobert gemma-embedding jina-bert-v2 jina-bert-v3 llada llada-moe modern-bert neo-bert nomic-bert
    nomic-bert-moe rnd1 t5encoder wavtokenizer-dec
    """)
"""Architectures that process the complete input at once and keep no cache."""

EMBEDDING: Final = _words("""
    bert eurobert gemma-embedding jina-bert-v2 jina-bert-v3 llama-embed modern-bert neo-bert nomic-bert
    nomic-bert-moe t5encoder
    """)
"""Architectures that return vectors and no text."""

RECURRENT: Final = _words("arwkv7 mamba mamba2 rwkv6 rwkv6qwen2 rwkv7")
"""Architectures without attention: each sequence has a state of fixed size."""

HYBRID: Final = _words("""
    bailingmoe3 falcon-h1 glm5-next granitehybrid jamba kimi-k3 kimi-linear lfm2 lfm2moe minimax-01 nemotron_h
    nemotron_h_moe plamo2 qwen35 qwen35moe qwen3next qwen4exp
    """)
"""Architectures with attention in some layers and a recurrent state in others."""

EVERY_NTH_ATTENDS: Final = _words("minimax-01 qwen35 qwen35moe qwen3next qwen4exp")
"""Hybrids whose attention layers are every n-th, n from `full_attention_interval` (4 by default)."""

BOTH_IN_EVERY_LAYER: Final = frozenset(["falcon-h1"])

SLIDING: Final = {
    "afmoe": 4, "cohere2": 4, "cohere2moe": -4, "exaone-moe": 4, "exaone4": 4, "gemma-embedding": 6, "gemma2": 2,
    "gemma3": 6, "gemma3n": 5, "gpt-oss": 2, "laguna": -4, "lfm2": 0, "llama4": 4, "mellum": 4, "modern-bert": -3,
    "muse-glimmer": 4, "olmo2": 4, "plamo3": 8, "smallthinker": -4,
}  # fmt: skip
"""The size n of the groups of layers in architectures with a window. The last layer of each group has no window,
or the first one where n is negative; with 0 all attention layers have one. A pattern in the file has precedence."""

SLIDING_BY_FILE: Final = _words("deepseek4 dots3note gemma4 gemma4-assistant granite_swa maple mimo2 spark2_5 step35")
"""Architectures with a sliding window only where the file has a pattern."""

SLIDING_ASSUMED: Final = {"gemma2": 4096, "llama4": 8192}
"""Windows in tokens for files that name none."""

SHARED_FROM: Final = {"gemma3n": 20}
"""The first layer that uses the cache of earlier layers."""
