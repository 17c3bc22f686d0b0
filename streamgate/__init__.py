"""A gateway for LLM token streams.

This package itself imports nothing, so that `import streamgate.sse` costs no more than the SSE library. Where to begin
reading: `relay/endpoint.py` (the life of one stream), `app.py` (what is built), `cli.py` (the commands).
"""

__version__ = "0.1.0"
