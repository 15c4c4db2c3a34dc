"""The arguments of chat templates that requests and manifests may set."""

from __future__ import annotations

# Booleans, numbers and short texts.
TEMPLATE_ARGUMENTS = frozenset((
    "add_vision_id", "available_tools", "builtin_tools", "controls", "custom_tools", "date_string",
    "documents", "enable_thinking", "force_nonempty_content", "keep_all_reasoning", "language", "length",
    "low_effort", "model_identity", "preserve_thinking", "reasoning", "reasoning_effort", "thinking",
    "thinking_budget", "thinking_effort", "thinking_mode", "tool_choice", "tools_in_user_message",
    "truncate_history_thinking", "xml_tools", "clear_thinking", "drop_thinking", "skip_think",
))  # fmt: skip
