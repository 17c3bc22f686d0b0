"""Personal data and keys are hidden in requests and answers, wherever tokens cut them; a plugin of streamgate."""

from streamgate_redact.plugin import Redact
from streamgate_redact.settings import Custom, RedactSettings

__all__ = ["Custom", "Redact", "RedactSettings"]
