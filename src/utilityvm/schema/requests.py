"""What a compute system is asked to do: change, tell of itself, stand still, be saved."""

from typing import Final

from msgspec import field

from utilityvm.schema.node import Node

MEMORY_PATH: Final = "VirtualMachine/ComputeTopology/Memory/SizeInMB"
CPU_GROUP_PATH: Final = "VirtualMachine/ComputeTopology/Processor/CpuGroup"
CPU_LIMITS_PATH: Final = "VirtualMachine/ComputeTopology/Processor/Limits"


class ModifySettingRequest(Node, frozen=True, kw_only=True):
    """A change of the resource at `resource_path`; `request_type` is ``Add``, ``Remove``, ``Update`` or ``PreAdd``.

    `settings` is a struct of this package, or what the resource is otherwise; `guest_request` is for the guest.
    """

    resource_path: str = field(default="", name="ResourcePath")
    request_type: str = field(default="", name="RequestType")
    settings: object = field(default=None, name="Settings")
    guest_request: object = field(default=None, name="GuestRequest")


class PropertyQuery(Node, frozen=True, kw_only=True):
    """Properties to be told, by their names; none: those that are always told."""

    property_types: list[str] = field(default_factory=list, name="PropertyTypes")


class PauseNotification(Node, frozen=True, kw_only=True):
    """Why a machine stands still, for whoever it hosts."""

    reason: str = field(default="", name="Reason")


class PauseOptions(Node, frozen=True, kw_only=True):
    """How a machine is to stand still."""

    suspension_level: str = field(default="", name="SuspensionLevel")
    hosted_notification: PauseNotification | None = field(default=None, name="HostedNotification")


class SaveOptions(Node, frozen=True, kw_only=True):
    """What a machine is saved as: `save_type` is ``ToFile`` or ``AsTemplate``."""

    save_type: str = field(default="", name="SaveType")
    save_state_file_path: str = field(default="", name="SaveStateFilePath")


class ProcessorLimits(Node, frozen=True, kw_only=True):
    """A running machine's share of the host's processors; all in the units of the document."""

    limit: int = field(default=0, name="Limit")
    weight: int = field(default=0, name="Weight")
    reservation: int = field(default=0, name="Reservation")
    maximum_frequency_mhz: int = field(default=0, name="MaximumFrequencyMHz")
