"""Streams as cassettes, recorded and replayed, as a plugin of streamgate."""

from streamgate_record_replay.plugin import RecordReplay
from streamgate_record_replay.settings import RecordReplaySettings

__all__ = ["RecordReplay", "RecordReplaySettings"]
