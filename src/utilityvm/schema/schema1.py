"""The first schema, as far as it is still spoken: to the host service in queries, to guests of its time."""

from msgspec import UNSET, Raw, UnsetType, field

from utilityvm.schema.node import Answer, Node


class PropertyQuery(Node, frozen=True, kw_only=True):
    """Properties to be told, by their names; none: those that are always told."""

    property_types: list[str] = field(default_factory=list, name="PropertyTypes")


class ComputeSystemQuery(Node, frozen=True, kw_only=True):
    """Which compute systems are to be listed: those that match all that is said."""

    ids: list[str] = field(default_factory=list, name="Ids")
    types: list[str] = field(default_factory=list, name="Types")
    names: list[str] = field(default_factory=list, name="Names")
    owners: list[str] = field(default_factory=list, name="Owners")


class GuestDefinedCapabilities(Answer, frozen=True, kw_only=True):
    """What a guest's agent says that it can do."""

    namespace_add_request_supported: bool = field(default=False, name="NamespaceAddRequestSupported")
    signal_process_supported: bool = field(default=False, name="SignalProcessSupported")
    dump_stacks_supported: bool = field(default=False, name="DumpStacksSupported")
    delete_container_state_supported: bool = field(default=False, name="DeleteContainerStateSupported")
    update_container_supported: bool = field(default=False, name="UpdateContainerSupported")


class ProcessConfig(Node, frozen=True, kw_only=True):
    """A process to be created; `console_size` is (height, width), in characters."""

    application_name: str = field(default="", name="ApplicationName")
    command_line: str = field(default="", name="CommandLine")
    command_args: list[str] = field(default_factory=list, name="CommandArgs")
    user: str = field(default="", name="User")
    working_directory: str = field(default="", name="WorkingDirectory")
    environment: dict[str, str] = field(default_factory=dict, name="Environment")
    emulate_console: bool = field(default=False, name="EmulateConsole")
    create_std_in_pipe: bool = field(default=False, name="CreateStdInPipe")
    create_std_out_pipe: bool = field(default=False, name="CreateStdOutPipe")
    create_std_err_pipe: bool = field(default=False, name="CreateStdErrPipe")
    console_size: tuple[int, int] = field(default_factory=lambda: (0, 0), name="ConsoleSize")
    create_in_utility_vm: bool = field(default=False, name="CreateInUtilityVm")
    oci_specification: Raw | UnsetType = field(default=UNSET, name="OCISpecification")


class ResourceModificationRequestResponse(Node, frozen=True, kw_only=True):
    """A change of a resource, and its answer."""

    resource_type: str = field(default_factory=str, name="ResourceType")
    settings: object = field(default_factory=lambda: None, name="Settings")
    request_type: str = field(default="", name="RequestType")


class MappedDir(Node, frozen=True, kw_only=True):
    """A folder of the host at a path of the container; limits of its disk in bytes and operations per second."""

    host_path: str = field(default_factory=str, name="HostPath")
    container_path: str = field(default_factory=str, name="ContainerPath")
    read_only: bool = field(default_factory=bool, name="ReadOnly")
    bandwidth_maximum: int = field(default_factory=int, name="BandwidthMaximum")
    iops_maximum: int = field(default_factory=int, name="IOPSMaximum")
    create_in_utility_vm: bool = field(default_factory=bool, name="CreateInUtilityVM")
    linux_metadata: bool = field(default=False, name="LinuxMetadata")


class MappedVirtualDisk(Node, frozen=True, kw_only=True):
    """A virtual disk at a path of the container, or only attached."""

    host_path: str = field(default="", name="HostPath")
    container_path: str = field(default_factory=str, name="ContainerPath")
    create_in_utility_vm: bool = field(default=False, name="CreateInUtilityVM")
    read_only: bool = field(default=False, name="ReadOnly")
    cache: str = field(default="", name="Cache")
    attach_only: bool = field(default=False, name="AttachOnly")


class MappedPipe(Node, frozen=True, kw_only=True):
    """A named pipe of the host at a name of the container."""

    host_path: str = field(default_factory=str, name="HostPath")
    container_pipe_name: str = field(default_factory=str, name="ContainerPipeName")
