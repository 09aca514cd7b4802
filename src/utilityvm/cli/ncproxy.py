"""`uvm ncproxy`: the proxy of this node's network, which VMs with `--network-config-proxy` register with."""

import argparse
import asyncio
import os
import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from utilityvm.network.ncproxy import EndpointsOf
    from utilityvm.wire.hcn import Dns, HostComputeEndpoint

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
        metavar="user|ns:PATH[,INTERFACE]",
        help="what a VM's adapter is on; may be given again. user (the default): the host's own sockets speak for the guest; ns: the place "
        "of eth0, or of INTERFACE, in a network namespace, which is root's. {id} in PATH is the VM's id",
    )
    add("--dns", action="append", default=[], metavar="ADDRESS", help="a server that guests ask for names, instead of the host's")
    add("--names", action="store_true", help="ask agents for endpoints by name alone, as those of the first hcsshim with a proxy take them")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    asyncio.run(_serve(args.address, _endpoints(args)))
    return 0


def _endpoints(args: argparse.Namespace) -> "EndpointsOf":
    from msgspec.structs import replace

    from utilityvm.kit.errors import InvalidOptions
    from utilityvm.network.endpoints import USER
    from utilityvm.wire.hcn import Dns

    words = args.endpoint or [USER]
    if len(set(words)) < len(words):
        raise InvalidOptions("--endpoint names one twice")
    dns = Dns(server_list=args.dns) if args.dns else None
    made = [_endpoint(word, dns) for word in words]
    if args.names and (dns or any(endpoint.namespace for endpoint in made)):
        raise InvalidOptions("--names with --dns or ns: a name says nothing of servers and namespaces")
    if args.names:
        return lambda _: [endpoint.name for endpoint in made]
    return lambda container: [replace(endpoint, namespace=endpoint.namespace.replace("{id}", container)) for endpoint in made]


def _endpoint(word: str, dns: "Dns | None") -> "HostComputeEndpoint":
    from utilityvm.kit.errors import InvalidOptions
    from utilityvm.network.endpoints import USER
    from utilityvm.wire.hcn import HostComputeEndpoint

    kind, _, where = word.partition(":")
    if word == USER:
        return HostComputeEndpoint(name=USER, dns=dns)
    path, _, interface = where.partition(",")
    if kind != "ns" or not path.startswith("/"):
        raise InvalidOptions(f"--endpoint {word}: is neither user nor ns:PATH, with a whole path")
    return HostComputeEndpoint(name=interface or "eth0", namespace=path, dns=dns)


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
