"""The response head of a relayed stream, as its passage opens it."""

from __future__ import annotations

from collections.abc import Callable

from streamgate.admission.books import Quota
from streamgate.record import StreamRecord
from streamgate.relay.answer import Kind
from streamgate.relay.attempt import Attempt
from streamgate.relay.headers import returned
from streamgate.relay.quota import limited, rate_headers
from streamgate.sse.outlet import Outlet, Source


class Head:
    """The response head of a relayed stream: the upstream's, less what does not pass, and ours. `quota` says what is
    left of the client's own rates; the upstream's, which are ours, are then nobody else's business."""

    __slots__ = ("_outlet", "_quota", "_record", "amended")

    def __init__(self, outlet: Outlet, record: StreamRecord, quota: Callable[[], Quota | None]) -> None:
        self._outlet = outlet
        self._record = record
        self._quota = quota
        self.amended: tuple[int, list[tuple[bytes, bytes]]] | None = None  # a plugin's status and headers

    @property
    def begun(self) -> bool:
        return self._outlet.started

    def open(self, attempt: Attempt, source: Source) -> None:
        outlet, record = self._outlet, self._record
        outlet.attach(source)
        outlet.beats = attempt.kind is Kind.EVENTS
        headers, record.upstream_request_id = returned(attempt.headers, record.request_id)
        status, headers = self.amended or (attempt.status, headers)
        headers = limited(headers, rate_headers(self._quota()))
        record.status = status
        if outlet.started:
            record.status = 200  # an early commit said so
            return
        if attempt.length is not None:
            headers = [*headers, (b"content-length", str(attempt.length).encode())]
        outlet.start(status, headers)
