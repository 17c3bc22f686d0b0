"""A trail of all requests in a file, as a plugin of streamgate."""

from streamgate_audit.plugin import Audit
from streamgate_audit.settings import AuditSettings

__all__ = ["Audit", "AuditSettings"]
