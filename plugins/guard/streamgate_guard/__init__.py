"""Streams are stopped by what is in them: a pattern, or what an HTTP classifier makes of it. Plugins of streamgate."""

from streamgate_guard.by_classifier import ClassifierGuard
from streamgate_guard.by_pattern import Guard
from streamgate_guard.settings import ClassifierSettings, GuardSettings, Rule

__all__ = ["ClassifierGuard", "ClassifierSettings", "Guard", "GuardSettings", "Rule"]
