"""Identities by a front proxy's headers, as a plugin of streamgate."""

from streamgate_header_auth.plugin import HeaderAuth
from streamgate_header_auth.settings import HeaderAuthSettings

__all__ = ["HeaderAuth", "HeaderAuthSettings"]
