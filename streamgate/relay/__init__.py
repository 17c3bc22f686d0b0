"""The data path: read endpoint.py first, everything else here is a footnote to it.

Owns: the life of one stream. Must not know: sockets, metric names, how any engine speaks.
"""
