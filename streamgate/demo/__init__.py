"""A scripted upstream that speaks the OpenAI API on raw sockets and misbehaves on request; the tests use it too.

Owns: what the model's name asks for (`grammar`), the bytes (`bodies`, `moves`), the sockets (`server`), and the show of
`streamgate demo`. Must not know: how the gateway works.
"""

from __future__ import annotations

from streamgate.demo.server import DemoUpstream, start

__all__ = ["DemoUpstream", "start"]
