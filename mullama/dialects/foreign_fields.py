"""Fields of llama-server's API that another API does not have. Requests with them are answered, and warned."""

from __future__ import annotations

from mullama.dialects.fields import Body

_FIELDS = (
    "return_progress", "timings_per_token", "verbose", "response_fields", "post_sampling_probs", "n_probs",
    "return_tokens", "reasoning_format", "cache_prompt", "id_slot", "n_keep", "n_discard", "n_predict", "n_cmpl",
    "t_max_predict_ms", "t_max_prompt_ms", "sse_ping_interval", "ignore_eos", "samplers", "grammar", "json_schema",
    "lora", "logit_bias", "min_p", "typical_p", "repeat_penalty", "repeat_last_n", "dynatemp_range",
    "dynatemp_exponent", "xtc_probability", "xtc_threshold", "mirostat", "mirostat_tau", "mirostat_eta",
    "dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers", "top_n_sigma",
    "seed", "presence_penalty", "frequency_penalty", "chat_template_kwargs", "reasoning_budget_tokens",
    "thinking_budget_tokens",
)  # fmt: skip


def llama_server_warnings(body: Body, api: str, *, read: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return a warning for each field of llama-server in the request that `api` does not have. read: those it has."""
    return tuple(f"{name} has no effect in {api}" for name in _FIELDS if name not in read and body.has(name))
