"""The host's networks: endpoints and namespaces of the host network service."""

from msgspec import UNSET, Raw, UnsetType, field

from utilityvm.schema.node import Answer


class NetworkAnswer(Answer, frozen=True, kw_only=True):
    """What the service says to a request: whether it did it, and what it tells or why it did not."""

    success: bool = field(default=False, name="Success")
    error: str = field(default="", name="Error")
    output: Raw | UnsetType = field(default=UNSET, name="Output")


class NamespaceResource(Answer, frozen=True, kw_only=True):
    """Something in a namespace: an ``Endpoint`` or a ``Container``, and what it is."""

    type: str = field(default="", name="Type")
    data: Raw | UnsetType = field(default=UNSET, name="Data")


class Namespace(Answer, frozen=True, kw_only=True):
    """A network namespace of the host."""

    id: str = field(default_factory=str, name="ID")
    is_default: bool = field(default=False, name="IsDefault")
    resource_list: list[NamespaceResource] = field(default_factory=list, name="ResourceList")
    compartment_id: int = field(default=0, name="CompartmentId")


class IpConfiguration(Answer, frozen=True, kw_only=True):
    """An address of an endpoint, in its network."""

    ip_address: str = field(default="", name="IpAddress")
    prefix_length: int = field(default=0, name="PrefixLength")


class Route(Answer, frozen=True, kw_only=True):
    """A way of an endpoint: without a hop it is straight to the link."""

    next_hop: str = field(default="", name="NextHop")
    destination_prefix: str = field(default="", name="DestinationPrefix")
    metric: int = field(default=0, name="Metric")


class HNSEndpoint(Answer, frozen=True, kw_only=True):
    """An endpoint, which becomes a network adapter; policies are of their own shapes."""

    id: str = field(default="", name="ID")
    name: str = field(default="", name="Name")
    virtual_network: str = field(default="", name="VirtualNetwork")
    virtual_network_name: str = field(default="", name="VirtualNetworkName")
    policies: list[Raw] = field(default_factory=list, name="Policies")
    mac_address: str = field(default="", name="MacAddress")
    ip_address: str = field(default="", name="IPAddress")
    ipv6_address: str = field(default="", name="IPv6Address")
    dns_suffix: str = field(default="", name="DNSSuffix")
    dns_server_list: str = field(default="", name="DNSServerList")
    gateway_address: str = field(default="", name="GatewayAddress")
    gateway_address_v6: str = field(default="", name="GatewayAddressV6")
    enable_internal_dns: bool = field(default=False, name="EnableInternalDNS")
    disable_icc: bool = field(default=False, name="DisableICC")
    prefix_length: int = field(default=0, name="PrefixLength")
    ipv6_prefix_length: int = field(default=0, name="IPv6PrefixLength")
    is_remote_endpoint: bool = field(default=False, name="IsRemoteEndpoint")
    enable_low_metric: bool = field(default=False, name="EnableLowMetric")
    namespace: Namespace | None = field(default=None, name="Namespace")
    encap_overhead: int = field(default=0, name="EncapOverhead")


class RoutedEndpoint(HNSEndpoint, frozen=True, kw_only=True):
    """One with more than an address of each family and its gateway: lists as in the service's second version, beside those."""

    ip_configurations: list[IpConfiguration] = field(default_factory=list, name="IpConfigurations")
    routes: list[Route] = field(default_factory=list, name="Routes")
