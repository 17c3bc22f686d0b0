"""May this stream start?

Owns: who is asking, slots and the queue for them, the lease. Must not know: HTTP, upstreams, what a stream carries.
"""
