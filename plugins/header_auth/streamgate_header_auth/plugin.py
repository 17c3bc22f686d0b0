"""Takes the word of a proxy in front for who is asking: only of a proxy in the listed networks.

The proxy must set these headers itself, and take away those that its clients send.
"""

from __future__ import annotations

from streamgate.hooks import Facade, Identity, Plugin, Refuse, RequestHead
from streamgate_header_auth.identity import Peers, Unclear, brought, identity_of
from streamgate_header_auth.settings import HeaderAuthSettings

QUIET = 60.0  # s between two lines in the log about spoofed headers: whoever sends them must not fill it


class HeaderAuth(Plugin):
    """Identities by a front proxy's headers, believed only from listed networks."""

    Settings = HeaderAuthSettings
    settings: HeaderAuthSettings

    def __init__(self, settings: HeaderAuthSettings, gateway: Facade) -> None:
        super().__init__(settings, gateway)
        self._peers = Peers(settings.networks)
        self._names = settings.headers
        self._identified = gateway.metrics.counter("identified_total", "Requests identified by a proxy's headers.")
        self._spoofed = gateway.metrics.counter("spoofed_total", "Requests with identity headers from elsewhere.")
        self._unclear = gateway.metrics.counter("unclear_total", "A proxy's headers that were refused.")
        self._told_at = float("-inf")

    def authenticate(self, head: RequestHead) -> Identity | None:
        if not self._peers.include(head.client):
            self._check_elsewhere(head)
            return None
        try:
            identity = identity_of(head.headers, self.settings)
        except Unclear as why:
            self._unclear.inc()
            self.gateway.log.warning("header_auth_unclear", proxy=head.client, why=str(why))
            raise Refuse(401, "identity_unclear", "The proxy's word on who is asking is not clear.") from None
        if identity is None and self.settings.missing == "refuse":
            raise Refuse(401, "identity_missing", "The proxy did not say who is asking.")
        if identity is not None:
            self._identified.inc()
        return identity

    def _check_elsewhere(self, head: RequestHead) -> None:
        """Headers that only a proxy may send, from somebody else: an attempt, or a proxy that is not listed."""
        found = brought(head.headers, self._names)
        if not found:
            return
        self._spoofed.inc()
        now = self.gateway.now()
        if now - self._told_at >= QUIET:
            self._told_at = now
            self.gateway.log.warning("header_auth_spoofed", client=head.client, headers=found)
        if self.settings.untrusted == "refuse":
            raise Refuse(403, "identity_not_trusted", "Identity headers are not taken from this address.")
