"""Where does a request go?

Owns: which route a model name leads to, in which order a route's upstreams are tried, and which upstreams are left out
for a while because they kept failing. Pure: plain values in, plain values out, the time is an argument.
Must not know: sockets, requests, streams.
"""
