"""What the operator says and sees: configuration, health, the admin port.

Owns: the configuration's keys, defaults, sources and checks. Must not know: how a stream is relayed.
"""
