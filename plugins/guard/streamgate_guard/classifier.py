"""Asks an HTTP classifier about a text, within a deadline."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Any

import httpx

from streamgate_guard.settings import ClassifierSettings


class Verdict(StrEnum):
    """What is known of a window; the label of `checks_total`."""

    PASSED = "passed"
    FLAGGED = "flagged"
    TIMEOUT = "timeout"
    ERROR = "error"


class Classifier:
    """To be closed after the last question."""

    def __init__(self, settings: ClassifierSettings) -> None:
        self._settings = settings
        self._client = httpx.AsyncClient(
            headers={name: value.get_secret_value() for name, value in settings.headers.items()},
            limits=httpx.Limits(max_connections=settings.connections, max_keepalive_connections=settings.connections),
            timeout=httpx.Timeout(None),  # `verdict` has a deadline for all of it, the wait for a connection included
            trust_env=False,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def verdict(self, text: str) -> Verdict:
        """Never raises but for a cancellation."""
        try:
            async with asyncio.timeout(self._settings.deadline):
                return Verdict.FLAGGED if await self._flagged(text) else Verdict.PASSED
        except TimeoutError:
            return Verdict.TIMEOUT
        except (httpx.HTTPError, ValueError):
            return Verdict.ERROR

    async def _flagged(self, text: str) -> bool:
        answer = await self._client.post(self._settings.url, json=self._question(text))
        answer.raise_for_status()
        return flagged(answer.json(), self._settings.format)

    def _question(self, text: str) -> dict[str, str]:
        # A lone surrogate has no bytes in UTF-8.
        written = text.encode("utf-8", "replace").decode()
        if self._settings.format == "plain":
            return {"text": written}
        return {"input": written} | ({"model": self._settings.model} if self._settings.model else {})


def flagged(answer: Any, form: str) -> bool:
    """What the answer says. Raises ValueError when it says nothing."""
    results = answer.get("results") if isinstance(answer, dict) else None
    answers = [answer] if form == "plain" else results
    if not isinstance(answers, list) or not answers:
        raise ValueError("an answer without results")
    said = [each.get("flagged") if isinstance(each, dict) else None for each in answers]
    if not all(isinstance(each, bool) for each in said):
        raise ValueError("an answer without flagged: true or false")
    return any(said)
