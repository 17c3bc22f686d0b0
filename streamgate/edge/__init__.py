"""The bytes before ASGI: uvicorn's HTTP protocol with a guard in front, and a response path that skips ASGI's messages.

Owns the request's framing, sizes, clocks and connection limits, the listening sockets, and the outlet that writes
straight to the transport. Must not know streams, models, routes or keys.
"""
