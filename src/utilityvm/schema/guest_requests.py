"""What a guest's agent is asked to do with a device that the host gave it or takes away."""

from msgspec import field

from utilityvm.schema.container import Layer
from utilityvm.schema.node import Node


class GuestRequest(Node, frozen=True, kw_only=True):
    """A request to the agent; `settings` is one of the structs below, by `resource_type`."""

    request_type: str = field(default="", name="RequestType")
    resource_type: str = field(default="", name="ResourceType")
    settings: object = field(default=None, name="Settings")


class CombinedLayers(Node, frozen=True, kw_only=True):
    """Read-only layers and a writable one that become one root file system."""

    container_root_path: str = field(default="", name="ContainerRootPath")
    layers: list[Layer] = field(default_factory=list, name="Layers")
    scratch_path: str = field(default="", name="ScratchPath")


class LCOWMappedVirtualDisk(Node, frozen=True, kw_only=True):
    """A SCSI disk that a Linux guest mounts."""

    mount_path: str = field(default="", name="MountPath")
    lun: int = field(default=0, name="Lun")
    controller: int = field(default=0, name="Controller")
    read_only: bool = field(default=False, name="ReadOnly")
    options: list[str] = field(default_factory=list, name="Options")


class WCOWMappedVirtualDisk(Node, frozen=True, kw_only=True):
    """A SCSI disk that a Windows guest mounts."""

    container_path: str = field(default="", name="ContainerPath")
    lun: int = field(default=0, name="Lun")


class LCOWMappedDirectory(Node, frozen=True, kw_only=True):
    """A 9p share that a Linux guest mounts."""

    mount_path: str = field(default="", name="MountPath")
    port: int = field(default=0, name="Port")
    share_name: str = field(default="", name="ShareName")
    read_only: bool = field(default=False, name="ReadOnly")


class LCOWMappedVPMemDevice(Node, frozen=True, kw_only=True):
    """A persistent memory device that a Linux guest mounts."""

    device_number: int = field(default=0, name="DeviceNumber")
    mount_path: str = field(default="", name="MountPath")


class LCOWMappedVPCIDevice(Node, frozen=True, kw_only=True):
    """A PCI device that a Linux guest waits for."""

    vmbus_guid: str = field(default="", name="VMBusGUID")


class LCOWAddress(Node, frozen=True, kw_only=True):
    """An address of an adapter, in its network."""

    ip_address: str = field(default="", name="IPAddress")
    prefix_length: int = field(default=0, name="PrefixLength")


class LCOWRoute(Node, frozen=True, kw_only=True):
    """A way: to everything without a destination, straight to the link without a hop."""

    next_hop: str = field(default="", name="NextHop")
    destination_prefix: str = field(default="", name="DestinationPrefix")
    metric: int = field(default=0, name="Metric")


class LCOWNetworkAdapter(Node, frozen=True, kw_only=True):
    """A network adapter that a Linux guest sets up; an empty address is asked for by DHCP."""

    namespace_id: str = field(default="", name="NamespaceID")
    id: str = field(default="", name="ID")
    mac_address: str = field(default="", name="MacAddress")
    ip_address: str = field(default="", name="IPAddress")
    prefix_length: int = field(default=0, name="PrefixLength")
    gateway_address: str = field(default="", name="GatewayAddress")
    dns_suffix: str = field(default="", name="DNSSuffix")
    dns_server_list: str = field(default="", name="DNSServerList")
    enable_low_metric: bool = field(default=False, name="EnableLowMetric")
    encap_overhead: int = field(default=0, name="EncapOverhead")


class LCOWIdentity(Node, frozen=True, kw_only=True):
    """What makes a Linux guest that goes on from a template one of its own: the time, since 1970, and names. Not in the original."""

    seconds: int = field(default=0, name="Seconds")
    nanoseconds: int = field(default=0, name="Nanoseconds")
    hostname: str = field(default="", name="Hostname")
    machine_id: str = field(default="", name="MachineID")


class LCOWRoutedAdapter(LCOWNetworkAdapter, frozen=True, kw_only=True):
    """The same in the newer shape: several addresses, of both families, and ways beside them."""

    ip_configs: list[LCOWAddress] = field(default_factory=list, name="IPConfigs")
    routes: list[LCOWRoute] = field(default_factory=list, name="Routes")
    policy_based_routing: bool = field(default=False, name="PolicyBasedRouting")


class NetworkModifyRequest(Node, frozen=True, kw_only=True):
    """A network adapter of a Windows guest."""

    adapter_id: str = field(default="", name="AdapterId")
    request_type: str = field(default="", name="RequestType")
    settings: object = field(default=None, name="Settings")


class RS4NetworkModifyRequest(Node, frozen=True, kw_only=True):
    """The same for guests before Windows Server 2019, which call the adapter otherwise."""

    adapter_instance_id: str = field(default="", name="AdapterInstanceId")
    request_type: str = field(default="", name="RequestType")
    settings: object = field(default=None, name="Settings")


class SignalProcessOptionsLCOW(Node, frozen=True, kw_only=True):
    """A signal for a Linux guest's process, by number."""

    signal: int = field(default=0, name="Signal")


class SignalProcessOptionsWCOW(Node, frozen=True, kw_only=True):
    """A signal for a Windows guest's process, by name (``CtrlC``, ``CtrlShutdown``, ...)."""

    signal: str = field(default="", name="Signal")


class HvSocketAddress(Node, frozen=True, kw_only=True):
    """Whose sockets a Windows guest's are: the addresses of the VM and of its host, GUIDs."""

    local_address: str = field(default="", name="LocalAddress")
    parent_address: str = field(default="", name="ParentAddress")
