"""What OpenAI's two streaming APIs share: events with `choices`, a finish reason for each, usage, errors, `[DONE]`.

An ordinary token is recognised by one regular expression over its raw bytes; whatever that does not recognise whole is
parsed. For events that hold valid JSON both give the same answer (keys given twice or spelt with escapes aside).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from streamgate.dialects.bodies import UNSAID, from_json, said_in, to_json
from streamgate.dialects.dialect import Seen, Sight
from streamgate.dialects.texts import SILENT, Speech, TextAt, Told, told
from streamgate.errors import Empty, ErrorEvent, Fault, Truncated
from streamgate.record import Usage
from streamgate.sse.frames import block_end
from streamgate.sse.parser import block_fields

# Why these bytes prove their place without parsing: a quote that no backslash precedes is JSON's own, so `"choices"`
# is a key; no brace opened before it but the event's own, so it is a key of the event; from there each byte is named.
# Negated classes of one character, because they cost a third of larger ones.
_NULLS = rb'(?:,\ ?"[a-z_]++":\ ?null)*+'
STRING_REST: Final = rb'[^"\\\r\n]*+ (?:\\[^\r\n][^"\\\r\n]*+)*+ "'  # the rest of a string, after its first quote
BEFORE: Final = rb'data:\ ?\{ [^{]*+ (?: (?<=[^\\]"choices":\[) | (?<=[^\\]"choices":\ \[) ) \{'
FIRST: Final = rb"""(?:"finish_reason":\ ?null,\ ?|) (?:"index":\ ?0,\ ?|"index":\ ?([1-9][0-9]?+),\ ?|)
    (?:"finish_reason":\ ?null,\ ?|) (?:"logprobs":\ ?null,\ ?|)"""
# To the end of the event no brace closes but the event's own and, in the group, those of the usage.
AFTER: Final = (
    rb"""(?:,\ ?"logprobs":\ ?null|) (?:,\ ?"finish_reason":\ ?null|)"""
    + _NULLS
    + rb"""(?:,\ ?"index":\ ?0|)"""
    + _NULLS
    + rb"""\}\]
    (?:(,\ ?"usage":\ ?\{)(?!\ *\}) [^{}\[\\\r\n]*+ (?:\{[^{}\[\\\r\n]*+\}[^{}\[\\\r\n]*+)*+ \} |)
    [^}]*+ \} (?:\n\n|\r\n\r\n)"""
)

# Finish reasons that say the opposite of an answer: vLLM's engine gives up with "abort" (vllm#57082).
FAILED: Final = frozenset(("error", "abort"))

_FINISHED: Final = Sight.SEMANTIC | Sight.FINISH
_ERROR: Final = Sight.SEMANTIC | Sight.ERROR
_ORDINARY: Final = Sight.SEMANTIC | Sight.ORDINARY
_SEMANTIC: Final = Sight.SEMANTIC
_WITH_USAGE: Final = Sight.SEMANTIC | Sight.USAGE
_STOPS: Final = Sight.ERROR | Sight.END


_opening = re.compile(rb'"(?:content|text|reasoning_content|reasoning)": ?"').search
_text = re.compile(rb'[^"\\\r\n]++').fullmatch
_text_and_quote = re.compile(rb'[^"\\\r\n]++"').match


def _note(frame: bytes, seen: Seen) -> None:
    """Remember what stands around the text of this ordinary event.

    Between the two there may be any text without a quote, an escape or a line end; so nothing can hide there.
    """
    opening = _opening(frame)
    text = _text_and_quote(frame, opening.end()) if opening is not None else None
    if opening is None or text is None:
        return
    if seen.events - seen.around_at < 2:  # the last note recognised nothing
        seen.patience -= 1
    seen.around = (frame[: opening.end()], frame[text.end() - 1 :])
    seen.around_at = seen.events


class Choices:
    """A dialect of events with `choices`: `token` recognises an ordinary one, `speaks` decides on a parsed choice.

    `speech` says where a choice has its text, in an event and in a whole answer.
    """

    __slots__ = ("_next_token", "_only_token", "_speaks", "_speech", "name", "ping", "tells")

    def __init__(
        self,
        name: str,
        token: bytes,
        speaks: Callable[[dict[str, Any]], bool],
        speech: tuple[Speech, Speech] = (SILENT, SILENT),
    ) -> None:
        self.name = name
        self.tells = True
        self._speech = speech
        self.ping = b": ping\n"  # and no blank line: the one form that all of 17 clients survive after an `id:`
        pattern = BEFORE + FIRST + token + AFTER
        self._only_token = re.compile(pattern + rb"\Z", re.VERBOSE).match
        self._next_token = re.compile(pattern, re.VERBOSE).match
        self._speaks = speaks

    def scan(self, frame: bytes, seen: Seen) -> int:
        before, after = seen.around
        # Most events differ from the one before in their text alone: 0.5 us instead of 1.1 for the whole pattern.
        if (
            frame.startswith(before)
            and frame.endswith(after)
            and _text(frame, len(before), len(frame) - len(after)) is not None
        ):
            seen.events += 1
            return _ORDINARY
        token = self._only_token(frame)
        # An `error` key, or an `event: error` between two lines of data. rfind costs half of what `in` does: 100 ns.
        if token is None or frame.rfind(b"error") >= 0:
            return self._exact(frame, seen)
        if token.lastindex is not None:
            return _unusual(token, frame, seen)
        seen.events += 1
        seen.choices.add(0)
        if seen.patience:
            _note(frame, seen)
        return _ORDINARY

    def _exact(self, frame: bytes, seen: Seen) -> int:
        """No single ordinary token: several events, or one that has to be parsed."""
        end = block_end(frame, 0)
        if end < len(frame):
            return self._walk(frame, seen)
        seen.stop, seen.end = 0, end
        return self.parse(frame, seen)

    def _walk(self, frame: bytes, seen: Seen) -> int:
        sight, start, size = Sight.NOTHING, 0, len(frame)
        trusted = frame.rfind(b"error") < 0
        while start < size:
            token = self._next_token(frame, start) if trusted else None
            if token is not None:
                end = token.end()
                sight |= _unusual(token, frame[start:end], seen)
            else:
                end = block_end(frame, start)
                sight |= self.parse(frame[start:end], seen)
                if sight & _STOPS:
                    seen.stop, seen.end = start, end
                    break
            start = end
        return sight

    def parse(self, event: bytes, seen: Seen) -> int:
        """The exact answer for the bytes of one event."""
        name, text = block_fields(event)
        if name == b"error":
            return self._failed(event, None if text is None else from_json(text), text or b"", seen)
        if text is None:
            return Sight.NOTHING
        if text.strip() == b"[DONE]":
            seen.events += 1
            return Sight.END
        payload = from_json(text)
        if not isinstance(payload, dict):
            seen.events += 1  # not ours to judge: SDKs raise on it
            return Sight.NOTHING
        if payload.get("error") or (payload.get("object") == "error" and "choices" not in payload):
            return self._failed(event, payload, text, seen)
        seen.events += 1
        return self._choices(payload, seen) | _usage(event, payload, seen)

    def _choices(self, payload: dict[str, Any], seen: Seen) -> int:
        sight = Sight.NOTHING
        choices = payload.get("choices")
        for position, choice in enumerate(choices if isinstance(choices, list) else ()):
            if not isinstance(choice, dict):
                continue
            index = choice.get("index")
            if type(index) is not int:
                index = position
            seen.choices.add(index)
            reason = choice.get("finish_reason")
            if isinstance(reason, str) and reason:
                seen.finished[index] = reason
                sight |= _FINISHED
            if self._speaks(choice):
                sight |= _SEMANTIC
        return sight

    def _failed(self, event: bytes, payload: object, text: bytes, seen: Seen) -> int:
        """The upstream reports an error. With an `error` key all SDKs raise, so it passes; else it is written anew."""
        seen.events += 1
        if isinstance(payload, dict) and payload.get("error"):
            said, code = said_in(payload["error"])
            seen.error = ErrorEvent(said, code=code, frame=event)
            return _ERROR
        if isinstance(payload, dict):
            said, code = said_in(payload)
            kind, param = payload.get("type"), payload.get("param")
        else:
            said = payload if isinstance(payload, str) else text.decode("utf-8", "replace")
            code = kind = param = None
        said = said.strip() or UNSAID
        frame = self.error_event(
            said,
            type=kind if isinstance(kind, str) and kind else "server_error",
            code=code,
            param=param if isinstance(param, str) else None,
        )
        seen.error = ErrorEvent(said, code=code, frame=frame)
        return _ERROR

    def verdict(self, seen: Seen, *, terminated: bool) -> Fault | None:
        """See `Dialect.verdict`. An `ErrorEvent` without a frame means a failed finish reason, which has been relayed
        as it came: nothing is to be added to what the client got."""
        if seen.error is not None:
            return seen.error
        failed = FAILED.intersection(seen.finished.values())
        if failed:
            reason = min(failed)
            return ErrorEvent(f"The upstream ended its answer with finish_reason {reason}.", code=reason)
        if terminated:
            return None if seen.finished else Truncated("a terminator without any finish reason")
        if not seen.events:
            return Empty()
        if seen.finished and seen.choices <= seen.finished.keys():
            return None
        return Truncated("the transport ended before every choice had a finish reason")

    def usage(self, seen: Seen) -> Usage | None:
        if seen.usage_frame is None:
            return None
        _, text = block_fields(seen.usage_frame)
        payload = from_json(text or b"")
        if not isinstance(payload, dict):
            return None
        stated = _tokens(payload.get("usage"), "prompt_tokens", "completion_tokens")
        # llama.cpp counts although nobody asked; what it found in its cache it counts apart.
        return stated or _tokens(payload.get("timings"), "prompt_n", "predicted_n", "cache_n")

    def error_event(self, message: str, *, type: str, code: str | None, param: str | None = None) -> bytes:
        error = {"message": message, "type": type, "param": param, "code": code}
        return b"data: " + to_json({"error": error}) + b"\n\n"

    def texts(self, payload: bytes, *, whole: bool = False) -> Told:
        return told(payload, self._speech[whole])

    def text_event(self, payload: bytes, at: TextAt, text: str) -> bytes:
        return self._speech[0].alone(payload, at, text)


def _unusual(token: re.Match[bytes], event: bytes, seen: Seen) -> int:
    """An ordinary token of any choice, with usage beside it or without."""
    index, usage = token.groups()
    seen.events += 1
    seen.choices.add(int(index or 0))
    if usage is None:
        return _SEMANTIC
    seen.usage_frame = event
    return _WITH_USAGE


def _usage(event: bytes, payload: dict[str, Any], seen: Seen) -> int:
    """Remember the event that counts tokens. Beside a choice, a count of 0 says that nothing was generated yet: vLLM's
    `continuous_usage_stats` puts it on the role-only delta, which is no progress."""
    usage = payload.get("usage")
    if isinstance(usage, dict) and usage:
        seen.usage_frame = event
        begun = not payload.get("choices") or usage.get("completion_tokens") != 0
        return _WITH_USAGE if begun else Sight.USAGE
    if seen.usage_frame is None and isinstance(payload.get("timings"), dict):
        seen.usage_frame = event
    return Sight.NOTHING


def _tokens(counts: object, prompt: str, completion: str, cached: str = "") -> Usage | None:
    if not isinstance(counts, dict):
        return None
    given = [counts.get(name) for name in (prompt, completion, cached)]
    tokens = [count if type(count) is int and count >= 0 else None for count in given]
    if tokens[0] is None and tokens[1] is None:
        return None
    return Usage(
        (tokens[0] or 0) + (tokens[2] or 0),
        tokens[1] or 0,
        cached_input=tokens[2] or _part(counts.get(f"{prompt}_details"), "cached_tokens"),
        reasoning=_part(counts.get(f"{completion}_details"), "reasoning_tokens"),
    )


def _part(details: object, name: str) -> int:
    """A count inside another, 0 where nothing is said."""
    count = details.get(name) if isinstance(details, dict) else None
    return count if type(count) is int and count >= 0 else 0
