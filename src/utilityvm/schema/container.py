"""Containers: those of the host, and those that a guest is asked to run."""

from msgspec import field

from utilityvm.schema.credential_guard import ContainerCredentialGuardState
from utilityvm.schema.devices import HvSocketSystemConfig, StorageQoS
from utilityvm.schema.node import Node
from utilityvm.schema.registry import RegistryChanges
from utilityvm.schema.version import Version


class GuestOs(Node, frozen=True, kw_only=True):
    """What the container calls itself."""

    host_name: str = field(default="", name="HostName")


class Layer(Node, frozen=True, kw_only=True):
    """A read-only layer; `path_type` and `cache` say how it is reached."""

    id: str = field(default="", name="Id")
    path: str = field(default="", name="Path")
    path_type: str = field(default="", name="PathType")
    cache: str = field(default="", name="Cache")


class Storage(Node, frozen=True, kw_only=True):
    """A root file system: read-only layers, topmost first, and the path of the writable one."""

    layers: list[Layer] = field(default_factory=list, name="Layers")
    path: str = field(default="", name="Path")
    qos: StorageQoS | None = field(default=None, name="QoS")


class MappedDirectory(Node, frozen=True, kw_only=True):
    """A folder of the host at a path of the container."""

    host_path: str = field(default="", name="HostPath")
    host_path_type: str = field(default="", name="HostPathType")
    container_path: str = field(default="", name="ContainerPath")
    read_only: bool = field(default=False, name="ReadOnly")


class MappedPipe(Node, frozen=True, kw_only=True):
    """A named pipe of the host at a name of the container."""

    container_pipe_name: str = field(default="", name="ContainerPipeName")
    host_path: str = field(default="", name="HostPath")
    host_path_type: str = field(default="", name="HostPathType")


class ContainerMemory(Node, frozen=True, kw_only=True):
    """A container's memory, in MiB."""

    size_in_mb: int = field(default=0, name="SizeInMB")


class ContainerProcessor(Node, frozen=True, kw_only=True):
    """A container's processors: how many, how much of them (of 10 000), and their weight."""

    count: int = field(default=0, name="Count")
    maximum: int = field(default=0, name="Maximum")
    weight: int = field(default=0, name="Weight")


class Networking(Node, frozen=True, kw_only=True):
    """A container's network: its namespace, or the adapters themselves, and how names are found."""

    allow_unqualified_dns_query: bool = field(default=False, name="AllowUnqualifiedDnsQuery")
    dns_search_list: str = field(default="", name="DnsSearchList")
    network_shared_container_name: str = field(default="", name="NetworkSharedContainerName")
    namespace: str = field(default="", name="Namespace")
    network_adapters: list[str] = field(default_factory=list, name="NetworkAdapters")


class ContainerHvSocket(Node, frozen=True, kw_only=True):
    """A container's hvsockets."""

    config: HvSocketSystemConfig | None = field(default=None, name="Config")
    enable_power_shell_direct: bool = field(default=False, name="EnablePowerShellDirect")


class Device(Node, frozen=True, kw_only=True):
    """A device of the host that a container may use, by class or by location."""

    type: str = field(default="", name="Type")
    interface_class_guid: str = field(default="", name="InterfaceClassGuid")
    location_path: str = field(default="", name="LocationPath")


class Container(Node, frozen=True, kw_only=True):
    """A container that shares its kernel with the system it runs on."""

    guest_os: GuestOs | None = field(default=None, name="GuestOs")
    storage: Storage | None = field(default=None, name="Storage")
    mapped_directories: list[MappedDirectory] = field(default_factory=list, name="MappedDirectories")
    mapped_pipes: list[MappedPipe] = field(default_factory=list, name="MappedPipes")
    memory: ContainerMemory | None = field(default=None, name="Memory")
    processor: ContainerProcessor | None = field(default=None, name="Processor")
    networking: Networking | None = field(default=None, name="Networking")
    hv_socket: ContainerHvSocket | None = field(default=None, name="HvSocket")
    container_credential_guard: ContainerCredentialGuardState | None = field(default=None, name="ContainerCredentialGuard")
    registry_changes: RegistryChanges | None = field(default=None, name="RegistryChanges")
    assigned_devices: list[Device] = field(default_factory=list, name="AssignedDevices")


class HostedSystem(Node, frozen=True, kw_only=True):
    """A container in a utility VM: what its guest is asked to create."""

    schema_version: Version | None = field(default=None, name="SchemaVersion")
    container: Container | None = field(default=None, name="Container")
