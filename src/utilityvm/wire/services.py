"""Hvsocket services, by which Windows knows what a guest dials: GUIDs, of which most are a port's."""

import re
from typing import Final

from utilityvm.wire.gcs import BRIDGE_PORT, ENTROPY_PORT, LOG_PORT

WINDOWS_BRIDGE_PORT: Final = 0xACEF5661
"""The port that stands for the service at which a Windows guest's agent dials the host; such guests know no ports."""

WINDOWS_HOST: Final = "894cc2d6-9d79-424f-93fe-42969ae6d8d1"
"""The host's address, as a Windows guest is told."""

PLAN9_PORT: Final = 564
AGENTS: Final = range(BRIDGE_PORT, 0x8000_0000)
"""The guest agent's connection, and the streams of processes, which count from there."""

NEEDED: Final = {ENTROPY_PORT: "the guest's entropy", LOG_PORT: "the log of the guest's agent", PLAN9_PORT: "shared folders"}
"""Ports below `AGENTS` that a VM itself needs, and for what."""

_BY_PORT: Final = "{:08x}-facb-11e6-bd58-64006a7986d3"
_OWN: Final = {WINDOWS_BRIDGE_PORT: "acef5661-84a1-4e44-856b-6245e69f4620"}


def service_id(port: int) -> str:
    """Return the service of a port: the one that a Linux guest reaches by it, or the Windows agent's own."""
    return _OWN.get(port, _BY_PORT.format(port))


def port_of(service: str) -> int | None:
    """Return the port by which a Linux guest reaches a service, None when it cannot dial it."""
    match = re.fullmatch(_BY_PORT.format(0).replace("0" * 8, "([0-9a-f]{8})", 1), service.lower())
    return int(match[1], 16) if match else None


def needed_for(port: int) -> str:
    """Return what a VM itself needs a port for, ``""`` when it does not."""
    return "the guest's agent and its processes" if port in AGENTS else NEEDED.get(port, "")
