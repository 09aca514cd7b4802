"""Ports of the guest that are to be reached on the host: how they are asked for, and whether they are free."""

import errno
import re
import socket
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

import msgspec

from utilityvm.kit.errors import Exists, HostError, InvalidOptions, Problem
from utilityvm.network.policy import port_range

MAX_PUBLISHED: Final = 1024
"""Ports of one guest."""

DEFAULT_HOST: Final = "127.0.0.1"
_LOOPBACKS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (what is asked for)
_SPEC: Final = re.compile(
    r"(?:(?P<host>\[[^\]]+\]|[^\[\]:]+):)?(?P<outer>\d{1,5}(?:-\d{1,5})?):(?P<inner>\d{1,5}(?:-\d{1,5})?)(?P<udp>/udp|/tcp)?"
)


class Published(msgspec.Struct, frozen=True):
    """A port of the guest, `guest_port`, that is reached as `port` at `host`; `protocol` is ``tcp`` or ``udp``."""

    host: str
    port: int
    guest_port: int
    protocol: str = "tcp"

    @property
    def address(self) -> str:
        """Host and port, as they stand in a URL; a port on every address of this host is reached by the loopback's."""
        host = _LOOPBACKS.get(self.host, self.host)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port} -> {self.guest_port}/{self.protocol}"


def parse_published(texts: Iterable[str]) -> tuple[Published, ...]:
    """Return the ports that ``[HOST:]PORT:PORT[/udp]`` name, each of ranges of the same length by itself.

    `HOST` is an address of this host, of IPv6 in brackets; without it the port is reached from this host alone.

    Raises:
        InvalidOptions: some are none, or two are the same; `problems` has all of them.
    """
    ports, problems = list[Published](), list[Problem]()
    for number, text in enumerate(texts):
        try:
            ports += _ports(text)
        except ValueError as error:
            problems.append(Problem(f"$.publish[{number}]", "invalid", f"{text!r}: {error}"))
    taken = {(port.host, port.port, port.protocol) for port in ports}
    if len(ports) > MAX_PUBLISHED:
        problems.append(Problem("$.publish", "bounds", f"{len(ports)} ports: at most {MAX_PUBLISHED}"))
    elif len(taken) < len(ports):
        problems.append(Problem("$.publish", "invalid", "a port of the host is given twice"))
    if problems:
        said = "; ".join(problem.message for problem in problems)
        raise InvalidOptions(f"publish: {said}", hint="a port is published as [HOST:]PORT:PORT, with /udp for datagrams", problems=problems)
    return tuple(ports)


def _ports(text: str) -> list[Published]:
    found = _SPEC.fullmatch(text)
    if found is None:
        raise ValueError("is not [HOST:]PORT:PORT[/udp]")
    host = (found["host"] or DEFAULT_HOST).strip("[]")
    try:
        host = str(ip_address(host))
    except ValueError as error:
        raise ValueError(f"{host!r} is no address of this host") from error
    outer, inner = _range(found["outer"]), _range(found["inner"])
    if len(outer) != len(inner):
        raise ValueError("the two ranges have different lengths")
    protocol = "udp" if found["udp"] == "/udp" else "tcp"
    return [Published(host, port, guest, protocol) for port, guest in zip(outer, inner, strict=True)]


def _range(text: str) -> range:
    first, last = port_range(text)
    return range(first, last + 1)


def must_be_free(ports: Iterable[Published]) -> None:
    """Find out by taking each whether it can be had. It is given back at once: who serves it takes it again.

    Raises:
        Exists: something else has one.
        HostError: one may not be had, or is at an address that this host does not have.
    """
    for port in ports:
        kind = socket.SOCK_DGRAM if port.protocol == "udp" else socket.SOCK_STREAM
        with socket.socket(socket.AF_INET6 if ":" in port.host else socket.AF_INET, kind | socket.SOCK_CLOEXEC) as probe:
            if port.protocol == "tcp":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what waits for the end of old connections is free
            if ":" in port.host:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind((port.host, port.port))
                if port.protocol == "tcp":
                    probe.listen(1)
            except OSError as error:
                raise _refused(port, error) from error


def _refused(port: Published, error: OSError) -> Exists | HostError:
    text = f"port {port.port}/{port.protocol} of {port.host} cannot be published: {error.strerror}"
    if error.errno == errno.EADDRINUSE:
        return Exists(text, hint="publish another port of the host, or end what has this one (ss -lnp)")
    if error.errno == errno.EACCES:
        return HostError(text, hint="ports below 1024 are root's: publish a higher one")
    return HostError(text)
