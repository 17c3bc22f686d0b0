"""`/v1/chat/completions`: choices that speak by `delta`."""

from __future__ import annotations

from typing import Any, Final

from streamgate.dialects.openai_choices import STRING_REST, Choices
from streamgate.dialects.texts import Kind, Speech

# Reasoning is progress: a gateway that waited for `content` logged a first token of 183 s for a real 1.2 s.
SPOKEN: Final = ("content", "reasoning_content", "reasoning", "tool_calls", "refusal", "audio", "function_call")

TOKEN: Final = (
    rb"""(?:"logprobs":\ ?null,\ ?|) "delta":\ ?\{
    (?:"role":\ ?(?:null|"assistant"),\ ?|) (?:"content":\ ?null,\ ?|)
    (?: "(?:content|reasoning_content|reasoning)":\ ?"(?!") """
    + STRING_REST
    + rb"""
    | "tool_calls":\ ?\[\{ "index":\ ?\d++,\ ?"function":\ ?\{ "arguments":\ ?" """
    + STRING_REST
    + rb"""\}\}\] )
    (?:,\ ?"[a-z_]++":\ ?null)*+ \}"""
)


def speaks(choice: dict[str, Any]) -> bool:
    """Whether the delta holds anything but a role: text, reasoning, a call, a refusal or audio, not empty."""
    delta = choice.get("delta")
    return isinstance(delta, dict) and any(map(delta.get, SPOKEN))


FIELDS: Final[dict[str, Kind]] = {"content": "content", "reasoning_content": "reasoning", "reasoning": "reasoning"}

OPENAI_CHAT: Final = Choices("openai_chat", TOKEN, speaks, (Speech("delta", FIELDS), Speech("message", FIELDS)))
