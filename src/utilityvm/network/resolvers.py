"""What a host has that its guests need: servers that are asked for names, ways to everything."""

from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from utilityvm.kit.errors import InvalidOptions

_RESOLV: Final = Path("/etc/resolv.conf")
_MAX_SERVERS: Final = 3
_ROUTE_WORDS: Final = 10
_UP, _REJECT = 0x1, 0x200


def host_servers() -> list[str]:
    """Return the servers that this host asks for names."""
    try:
        lines = _RESOLV.read_text(errors="replace").splitlines()
    except OSError:
        return []
    words = [line.split() for line in lines]
    return [word[1] for word in words if len(word) > 1 and word[0] == "nameserver" and _is_address(word[1])][:_MAX_SERVERS]


def has_six(routes: Path) -> bool:
    """Return whether there is a way to everything by IPv6 among the kernel's `routes`, as /proc tells them."""
    try:
        lines = [line.split() for line in routes.read_text().splitlines()]
    except OSError:  # a kernel without IPv6
        return False
    return any(_is_way_out(words) for words in lines if len(words) == _ROUTE_WORDS)


def _is_way_out(words: list[str]) -> bool:
    flags = int(words[8], 16)
    return words[:2] == ["0" * 32, "00"] and words[9] != "lo" and flags & _UP != 0 and not flags & _REJECT


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
