"""`uvm ncproxy`: the proxy of this node's network, which VMs with `--network-config-proxy` register with."""

import argparse
import asyncio
import os
import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from utilityvm.network.ncproxy import EndpointsOf

_LAST_CALLS: Final = 5.0  # seconds that calls have to end once we are told to


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's command line."""
    parser.description = (
        "Serve hcsshim's NetworkConfigProxy by ttrpc: VMs that are started with --network-config-proxy ADDRESS register here, and are "
        "given an adapter on each endpoint, in this order; before they end it is taken out. Runs until Ctrl-C or SIGTERM."
    )
    add = parser.add_argument
    add("address", metavar="ADDRESS", help="where to listen: a path, or @NAME, which is no file; this user and root may connect")
    add(
        "--endpoint",
        action="append",
        default=[],
        metavar="NAME",
        help="what a VM's adapter is on; may be given again. user (the default): the VM's own host speaks for it, see uvm boot --network",
    )
    add("--dns", action="append", default=[], metavar="ADDRESS", help="a server that guests ask for names, instead of the host's")
    add("--names", action="store_true", help="ask agents for endpoints by name alone, as those of the first hcsshim with a proxy take them")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    asyncio.run(_serve(args.address, _endpoints(args)))
    return 0


def _endpoints(args: argparse.Namespace) -> "EndpointsOf":
    from utilityvm.kit.errors import InvalidOptions
    from utilityvm.network.endpoints import USER
    from utilityvm.wire.hcn import Dns, HostComputeEndpoint

    names = args.endpoint or [USER]
    if len(set(names)) < len(names):
        raise InvalidOptions("--endpoint names one twice")
    if args.names and args.dns:
        raise InvalidOptions("--dns with --names: a name says nothing of servers")
    if args.names:
        return lambda _: names
    dns = Dns(server_list=args.dns) if args.dns else None
    return lambda _: [HostComputeEndpoint(name=name, dns=dns) for name in names]


async def _serve(address: str, endpoints: "EndpointsOf") -> None:
    from utilityvm.kit.named import UnixSockets
    from utilityvm.network.ncproxy import NetworkConfigProxy
    from utilityvm.ttrpc.server import Server
    from utilityvm.wire.ncproxy import NETWORK_CONFIG_PROXY

    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    named = UnixSockets()
    proxy = NetworkConfigProxy(named, endpoints)
    server = Server("ncproxy", {NETWORK_CONFIG_PROXY: proxy.methods}, users=frozenset({0, os.geteuid()}))
    try:
        await server.serve(named, address)
        print(f"ncproxy listens at {address}", flush=True)
        await ended.wait()
    finally:
        await server.aclose(within=_LAST_CALLS)
        await proxy.aclose()
