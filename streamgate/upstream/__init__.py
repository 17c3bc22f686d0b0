"""One request out, one byte stream back.

Owns: connections to upstreams, who uses them and for how long, one HTTP/1.1 exchange on each, and the decision whether
a failed try may be made again. Pushes bytes into a `Receiver` (exchange.py); faults come as `streamgate.errors.Fault`.
Must not know: clients, streams, models, SSE, routes.
"""
