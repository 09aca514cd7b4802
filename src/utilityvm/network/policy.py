"""What a guest may reach: the rules that a user gives, and what is closed without them. Pure.

A rule is ``CIDR``, ``address`` or ``domain``, with ``:PORT`` or ``:PORT-PORT`` and ``/udp`` or ``/tcp`` if it is only about these::

    203.0.113.0/24    198.51.100.7:443    [2001:db8::1]:53/udp    example.org    *.example.org:443
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

import msgspec

from utilityvm.kit.errors import InvalidOptions, Problem
from utilityvm.network.frames import TCP, UDP, Address

Net = IPv4Network | IPv6Network

DNS_PORTS: Final = frozenset({53, 853})
"""Ports by which names are asked: a rule that names no port is not about them."""

MAX_RULES: Final = 1024

MAX_HOSTS: Final = 256
"""Names that an owner gives addresses."""

Hosts = Mapping[str, Sequence[Address]]
"""Addresses of names, which are in lower case."""

_PORTS: Final = 65535


def _nets(*texts: str) -> tuple[Net, ...]:
    return tuple(ip_network(text) for text in texts)


NEVER: Final = _nets("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32", "::/127", "ff00::/8", "::ffff:0:0/96")
"""What no rule opens: the host itself, whatever is sent to all or to a group, addresses of the other family in disguise."""

CLOSED: Final = _nets(
    "10.0.0.0/8",
    "100.64.0.0/10",
    "168.63.129.16/32",  # Azure's metadata, in a public network
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "240.0.0.0/4",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "fc00::/7",
    "fe80::/10",
    "::/3",
    "4000::/2",
    "8000::/1",
)
"""What is open only when a rule names it, or a network within it: private, local, shared, documentation, metadata, tunnels, the rest."""


class Rule(msgspec.Struct, frozen=True):
    """What may be reached: `net` or the names of `domain`, at ports from `first` to `last`, by `protocol` (0: TCP and UDP).

    `domain` is in lower case; ``*.example.org`` is every name below it, and not itself. `any_port` says that no port was named.
    """

    net: Net | None = None
    domain: str = ""
    first: int = 1
    last: int = _PORTS
    protocol: int = 0

    @property
    def any_port(self) -> bool:
        """Whether no port was named."""
        return (self.first, self.last) == (1, _PORTS)

    def has(self, port: int, protocol: int) -> bool:
        """Whether it is about this port."""
        if protocol not in {TCP, UDP}:
            return self.any_port and not self.protocol
        if self.any_port and port in DNS_PORTS:
            return False
        return self.first <= port <= self.last and self.protocol in {0, protocol}

    def names(self, name: str) -> bool:
        """Whether it is about this name, which is in lower case."""
        if self.domain.startswith("*."):
            return name.endswith(self.domain[1:])
        return name == self.domain


_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


def parse_rules(texts: Iterable[str]) -> tuple[Rule, ...]:
    """Return the rules that these texts are.

    Raises:
        InvalidOptions: some are none; `problems` has all of them.
    """
    rules, problems = list[Rule](), list[Problem]()
    for number, text in enumerate(texts):
        try:
            rules.append(_rule(text.strip().lower()))
        except ValueError as error:
            problems.append(Problem(f"$.allow[{number}]", "invalid", f"{text!r}: {error}"))
    if len(rules) > MAX_RULES:
        problems.append(Problem("$.allow", "bounds", f"{len(rules)} rules: at most {MAX_RULES}"))
    if problems:
        message = "; ".join(problem.message for problem in problems)
        raise InvalidOptions(f"allow: {message}", hint="a rule is CIDR, address, domain or *.domain, with :PORT", problems=problems)
    return tuple(rules)


def _rule(text: str) -> Rule:
    protocol = {"/tcp": TCP, "/udp": UDP}.get(text[-4:], 0)
    bare = text[:-4] if protocol else text
    what, ports = _parted(bare)
    first, last = port_range(ports) if ports else (1, _PORTS)
    net = _net(what)
    if net is None:
        return Rule(domain=_domain(what), first=first, last=last, protocol=protocol)
    if any(isinstance(never, type(net)) and net.subnet_of(never) for never in NEVER):  # type: ignore[arg-type]
        raise ValueError("is never reached: it is the host itself, or a group")
    return Rule(net=net, first=first, last=last, protocol=protocol)


def parse_hosts(texts: Iterable[str]) -> dict[str, list[Address]]:
    """Return what ``NAME:ADDRESS`` say; a name may be given several addresses, also of both families.

    Raises:
        InvalidOptions: some say nothing; `problems` has all of them.
    """
    hosts, problems = dict[str, list[Address]](), list[Problem]()
    for number, text in enumerate(texts):
        try:
            name, address = _host(text)
        except ValueError as error:
            problems.append(Problem(f"$.hosts[{number}]", "invalid", f"{text!r}: {error}"))
        else:
            hosts.setdefault(name, []).append(address)
    if sum(map(len, hosts.values())) > MAX_HOSTS:
        problems.append(Problem("$.hosts", "bounds", f"more than {MAX_HOSTS} addresses of names"))
    if problems:
        message = "; ".join(problem.message for problem in problems)
        raise InvalidOptions(f"hosts: {message}", hint="a name is given an address as NAME:ADDRESS", problems=problems)
    return hosts


def _host(text: str) -> tuple[str, Address]:
    name, colon, address = text.partition(":")
    if not colon or name.startswith("*"):
        raise ValueError("is not NAME:ADDRESS")
    return _domain(name.strip().lower()), ip_address(address.strip().removeprefix("[").removesuffix("]"))


def _parted(text: str) -> tuple[str, str]:
    """Part what a rule is about from its ports; an address of IPv6 has brackets when a port follows."""
    if text.startswith("["):
        what, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith((":", "/"))):
            raise ValueError("a bracket that is not closed")
        if rest.startswith("/"):
            length, _, ports = rest.partition(":")
            return what + length, ports
        return what, rest[1:]
    if text.count(":") > 1:
        return text, ""
    what, _, ports = text.partition(":")
    return what, ports


def port_range(text: str) -> tuple[int, int]:
    """Return the first and the last port of ``PORT`` or ``PORT-PORT``.

    Raises:
        ValueError: it is neither.
    """
    first, _, last = text.partition("-")
    if not first.isdecimal() or (last and not last.isdecimal()) or not first.isascii() or not last.isascii():
        raise ValueError(f"{text!r} is no port")
    low, high = int(first), int(last or first)
    if not 1 <= low <= high <= _PORTS:
        raise ValueError(f"{text!r} is no range of ports")
    return low, high


def _net(text: str) -> Net | None:
    try:
        return ip_network(text)
    except ValueError as error:
        if "/" in text or ":" in text or re.fullmatch(r"[\d.]+", text):
            raise ValueError(f"no address or network ({error})") from error
        return None


def _domain(text: str) -> str:
    name = text.removesuffix(".")
    bare = name.removeprefix("*.")
    labels = bare.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("no domain")
    if name.startswith("*.") and len(labels) < 2:
        raise ValueError("a wildcard of everything below a top-level domain")
    return name


class Policy(msgspec.Struct, frozen=True):
    """What may be reached. `rules` None: every public address, and any name may be asked for. Otherwise nothing but what a rule names.

    `mine` are the host's own addresses and the networks that it is in, which are closed like `CLOSED`.
    """

    rules: tuple[Rule, ...] | None = None
    mine: tuple[Net, ...] = ()

    def refusal(self, address: Address, port: int, protocol: int, names: Sequence[str] = ()) -> str:
        """Return why `address` may not be reached at `port` by `protocol`, ``""`` when it may. `names` are those that it was told for."""
        if _within(address, NEVER):
            return "never"
        blocks = self._blocks(address)
        if self.rules is None:
            return "closed" if blocks else ""
        for rule in self.rules:
            if not rule.has(port, protocol):
                continue
            if rule.net is not None and _in(address, rule.net) and all(_inside(rule.net, block) for block in blocks):
                return ""
            if rule.domain and not blocks and any(rule.names(name) for name in names):
                return ""
        return "closed" if blocks else "policy"

    def may_ask(self, name: str) -> bool:
        """Whether a name, in lower case, may be asked for."""
        return self.rules is None or any(rule.domain and rule.names(name) for rule in self.rules)

    def may_be_told(self, address: Address) -> bool:
        """Whether an answer to a question may have this address: one that is closed is not, unless a rule opens it by its number."""
        if self.rules is None:
            return True
        if _within(address, NEVER):
            return False
        blocks = self._blocks(address)
        opened = (rule.net for rule in self.rules if rule.net is not None and _in(address, rule.net))
        return not blocks or any(all(_inside(net, block) for block in blocks) for net in opened)

    def _blocks(self, address: Address) -> list[Net]:
        """Return the closed networks that an address is in: what opens it is within all of them."""
        return [net for net in (*CLOSED, *self.mine) if _in(address, net)]


def _in(address: Address, net: Net) -> bool:
    return address.version == net.version and address in net


def _within(address: Address, nets: Iterable[Net]) -> bool:
    return any(_in(address, net) for net in nets)


def _inside(net: Net, block: Net) -> bool:
    return net.version == block.version and net.subnet_of(block)  # type: ignore[arg-type]
