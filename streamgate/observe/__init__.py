"""One record, three views: metrics, log lines, and the place for spans.

Owns: every metric's name, labels and buckets; the canonical log line; counting each stream exactly once.
Must not know: how a stream works, HTTP, configuration files. The only package that imports prometheus_client.
"""

from streamgate.observe.observer import Observer
from streamgate.observe.tally import Readings

__all__ = ["Observer", "Readings"]
