"""Flags of a VM's network, for every verb that starts one."""

import argparse
from typing import Final

from utilityvm.kit.errors import InvalidOptions
from utilityvm.options.network import BridgeNetwork, NamespaceNetwork, NetworkWish, UserNetwork

_USER: Final = frozenset({"--allow", "-p", "--dns", "--add-host", "--rate"})
_TAKEN: Final = {
    "": _USER,
    "none": frozenset[str](),
    "user": _USER,
    "ns": frozenset({"--dns", "--rate"}),
    "bridge": frozenset({"--dns", "--rate", "--ip", "--gateway"}),
}
"""The kinds of networks, ``""`` when none is named, and the flags that each takes."""

_PLACED: Final = frozenset({"ns", "bridge"})


def add_network_flags(parser: argparse.ArgumentParser) -> None:
    """Describe them."""
    group = parser.add_argument_group("network", "Without any of these the VM has none.")
    add = group.add_argument
    add(
        "--network",
        "--net",
        default=None,
        metavar="none|user|ns:PATH|bridge:NAME",
        help="none; user: the host's own sockets speak for the guest, which reaches public addresses only, and no root is needed; ns: the "
        "place of the interface eth0 in a network namespace, as CNI makes it; bridge: a port of a bridge. The last two are root's",
    )
    add("--ip", action="append", default=[], metavar="ADDRESS/LENGTH", help="the guest's address at a bridge; may be given again")
    add("--gateway", action="append", default=[], metavar="ADDRESS", help="its way from a bridge to everything")
    add(
        "--allow",
        action="append",
        default=[],
        metavar="CIDR|DOMAIN[:PORT]",
        help="let the guest reach this and nothing else; may be given again. *.DOMAIN is all names below it",
    )
    add(
        "-p",
        "--publish",
        action="append",
        default=[],
        metavar="[HOST:]PORT:PORT[/udp]",
        help="let a port of the guest be reached at one of the host, or a range; without HOST from this host only",
    )
    add(
        "--add-host",
        action="append",
        default=[],
        metavar="NAME:ADDRESS",
        help="tell the guest this address when it asks for NAME; may be given again",
    )
    add("--rate", metavar="SIZE", help="most that may go each way in a second, as 10m")
    add("--dns", action="append", default=[], metavar="ADDRESS", help="a server to ask for names, instead of the host's")


def wanted_network(args: argparse.Namespace) -> NetworkWish | None:
    """Return the network that is wanted, None for none. What only a network makes sense with asks for one.

    Raises:
        InvalidOptions: flags contradict each other.
    """
    kind, _, where = (args.network or "").partition(":")
    if kind not in _TAKEN or bool(where) != (kind in _PLACED):
        raise InvalidOptions(f"--network {args.network}: is none of none, user, ns:PATH and bridge:NAME")
    given = {"--allow": args.allow, "-p": args.publish, "--dns": args.dns, "--add-host": args.add_host, "--rate": args.rate}
    given |= {"--ip": args.ip, "--gateway": args.gateway}
    asked = [flag for flag, value in given.items() if value]
    if idle := [flag for flag in asked if flag not in _TAKEN[kind]]:
        raise InvalidOptions(f"{', '.join(idle)}: with --network {kind or 'user'} there is nothing to apply it to")
    match kind:
        case "ns":
            return NamespaceNetwork(namespace=where, dns=tuple(args.dns), rate=_rate(args.rate))
        case "bridge":
            addresses, gateways = tuple(args.ip), tuple(args.gateway)
            return BridgeNetwork(bridge=where, addresses=addresses, gateways=gateways, dns=tuple(args.dns), rate=_rate(args.rate))
    if kind != "user" and not asked:
        return None
    return UserNetwork(
        allow=tuple(args.allow) if args.allow else None,
        publish=tuple(args.publish),
        dns=tuple(args.dns),
        hosts=tuple(args.add_host),
        rate=_rate(args.rate),
    )


def _rate(text: str | None) -> int | None:
    if text is None:
        return None
    from utilityvm.containers.wish import parse_size  # which verbs without containers need for nothing else

    return parse_size(text)
