"""Flags of a VM's network, for every verb that starts one."""

import argparse

from utilityvm.kit.errors import InvalidOptions
from utilityvm.options.network import UserNetwork


def add_network_flags(parser: argparse.ArgumentParser) -> None:
    """Describe them."""
    group = parser.add_argument_group("network", "Without any of these the VM has none.")
    add = group.add_argument
    add(
        "--network",
        choices=("none", "user"),
        default=None,
        help="none, or user: the host's own sockets speak for the guest, which reaches public addresses only; needs no root",
    )
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
    add("--dns", action="append", default=[], metavar="ADDRESS", help="a server to ask for names, instead of the host's")


def wanted_network(args: argparse.Namespace) -> UserNetwork | None:
    """Return the network that is wanted, None for none. What only a network makes sense with asks for one.

    Raises:
        InvalidOptions: flags contradict each other.
    """
    given = {"--allow": args.allow, "-p": args.publish, "--dns": args.dns}
    asked = [flag for flag, value in given.items() if value]
    if args.network == "none" and asked:
        raise InvalidOptions(f"{', '.join(asked)}: with --network none there is nothing to apply it to")
    if args.network != "user" and not asked:
        return None
    return UserNetwork(allow=tuple(args.allow) if args.allow else None, publish=tuple(args.publish), dns=tuple(args.dns))
