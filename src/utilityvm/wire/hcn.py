"""An endpoint of the host's networks, as Windows' host network service and hcsshim's services of a node's network write it in JSON.

What is not known of it is passed over, since peers are newer and older than we are; and each member that is here has a meaning to us.
"""

from msgspec import Raw, Struct, field


class _Told(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Members at their zero are not written."""


class IpConfig(_Told, frozen=True, kw_only=True):
    """An address and the length of its network."""

    ip_address: str = field(default="", name="IpAddress")
    prefix_length: int = field(default=0, name="PrefixLength")


class Dns(_Told, frozen=True, kw_only=True):
    """How names are asked for."""

    domain: str = field(default="", name="Domain")
    search: list[str] | None = field(default=None, name="Search")
    server_list: list[str] | None = field(default=None, name="ServerList")
    options: list[str] | None = field(default=None, name="Options")


class Route(_Told, frozen=True, kw_only=True):
    """A way to a network."""

    next_hop: str = field(default="", name="NextHop")
    destination_prefix: str = field(default="", name="DestinationPrefix")
    metric: int = field(default=0, name="Metric")


class HostComputeEndpoint(_Told, frozen=True, kw_only=True):
    """An endpoint, which becomes a network adapter."""

    id: str = field(default="", name="ID")
    name: str = field(default="", name="Name")
    network: str = field(default="", name="HostComputeNetwork")
    namespace: str = field(default="", name="HostComputeNamespace")
    policies: list[Raw] | None = field(default=None, name="Policies")
    ip_configurations: list[IpConfig] | None = field(default=None, name="IpConfigurations")
    dns: Dns | None = field(default=None, name="Dns")
    routes: list[Route] | None = field(default=None, name="Routes")
    mac_address: str = field(default="", name="MacAddress")
    flags: int = field(default=0, name="Flags")
