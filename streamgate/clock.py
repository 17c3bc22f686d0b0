"""The one source of time: monotonic seconds for every duration and deadline, wall time only for timestamps.

The event loop's own `time()` is not it: uvloop's is cached per iteration and counts milliseconds.
"""

from __future__ import annotations

import time

monotonic = time.monotonic
wall = time.time
