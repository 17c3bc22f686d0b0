"""What the events of each API family mean: progress, finish, usage, error, end; and how to say an error in its words.

Owns: the classification of raw frames, token counts, error events, pings, whole error bodies. Pure and stateless.
Must not know: sockets, clocks, tries, who reads the answers.
"""
