"""For authors of plugins: run one against scripted streams, without a server, and see what the client would get.

Owns: the harness, the script's words. What is between script and client is the gateway's own passage and hooks.
"""

from streamgate.testing.harness import Failure, PluginHarness
from streamgate.testing.received import Received
from streamgate.testing.script import Delta, finish, say

__all__ = ["Delta", "Failure", "PluginHarness", "Received", "finish", "say"]
