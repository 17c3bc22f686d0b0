"""What admission's parts say at a scrape, as plain values: nothing is named by key or tenant."""

from __future__ import annotations

from streamgate.admission.books import Row
from streamgate.admission.pressure import Pressure
from streamgate.admission.shared import SharedLimits
from streamgate.observe.tally import Slots, StoreReadings

GATEWAY = "gateway"  # the name of the only limit of level global: no label is ever empty


def slots_of(row: Row) -> Slots:
    return Slots(row.level.value, row.name or GATEWAY, row.used, row.limit)


def causes_of(pressure: Pressure) -> dict[str, bool]:
    """Why newcomers are refused at the moment."""
    return {"lag": pressure.late, "memory": pressure.full}


def store_of(shared: SharedLimits | None) -> StoreReadings | None:
    if shared is None:
        return None
    return StoreReadings(
        up=shared.connected,
        asked=shared.takes,
        results={
            "denied": shared.denials,
            "timeout": shared.timeouts,
            "failed_open": shared.failed_open,
            "failed_closed": shared.failed_closed,
        },
        renewals={"ok": shared.renewals, "failed": shared.renew_failures},
    )
