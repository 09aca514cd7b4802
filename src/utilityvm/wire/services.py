"""Hvsocket services, by which Windows knows what a guest dials: GUIDs, of which most are a port's."""

from typing import Final

WINDOWS_BRIDGE_PORT: Final = 0xACEF5661
"""The port that stands for the service at which a Windows guest's agent dials the host; such guests know no ports."""

WINDOWS_HOST: Final = "894cc2d6-9d79-424f-93fe-42969ae6d8d1"
"""The host's address, as a Windows guest is told."""

_BY_PORT: Final = "{:08x}-facb-11e6-bd58-64006a7986d3"
_OWN: Final = {WINDOWS_BRIDGE_PORT: "acef5661-84a1-4e44-856b-6245e69f4620"}


def service_id(port: int) -> str:
    """Return the service of a port: the one that a Linux guest reaches by it, or the Windows agent's own."""
    return _OWN.get(port, _BY_PORT.format(port))
