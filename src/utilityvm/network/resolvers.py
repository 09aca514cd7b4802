"""Servers that are asked for names."""

from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from utilityvm.kit.errors import InvalidOptions

_RESOLV: Final = Path("/etc/resolv.conf")
_MAX_SERVERS: Final = 3


def host_servers() -> list[str]:
    """Return the servers that this host asks for names."""
    try:
        lines = _RESOLV.read_text(errors="replace").splitlines()
    except OSError:
        return []
    words = [line.split() for line in lines]
    return [word[1] for word in words if len(word) > 1 and word[0] == "nameserver" and _is_address(word[1])][:_MAX_SERVERS]


def check_servers(servers: Iterable[str]) -> None:
    """Refuse what is no server.

    Raises:
        InvalidOptions: one is no address.
    """
    for server in servers:
        if not _is_address(server):
            raise InvalidOptions(f"dns: {server!r}: a server for names is an address")


def _is_address(text: str) -> bool:
    try:
        ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True
