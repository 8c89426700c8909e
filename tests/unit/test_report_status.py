"""The table of hosts."""

from envoymesh.findings import HostStatus, State
from envoymesh.model.mesh import HostName
from envoymesh.report.status import status_text


def test_units_are_named_in_short_whatever_the_release() -> None:
    units = {"envoymesh-app-4dca3650b15e.service": "active", "envoymesh-sidecar.service": "active"}
    row = HostStatus(HostName("cart-1"), "cart", "10.0.0.1", State.OK, units=units)
    assert "  app, sidecar  " in status_text([row])
