"""Utility VMs: small virtual machines that hold containers and processes.

    async with utilityvm.Sandbox("busybox") as box:
        print((await box.run("uname", "-r")).text)

A sandbox is the short way over a VM, which may be held by itself:

    vm = await utilityvm.create_lcow(utilityvm.default_options_lcow())
    async with vm:
        await vm.start()
        process = await vm.create_process(["uname", "-r"])
        print(await process.stdout.read(), await process.wait())

Names are loaded when they are first used, so that importing the package costs next to nothing.
"""

from importlib import import_module

TYPE_CHECKING = False  # typing has a constant of this name, and costs more to import than all that is here
if TYPE_CHECKING:
    from utilityvm.compute.ports import ExitStatus, MachineStatistics
    from utilityvm.containers.container import Container, ContainerExit
    from utilityvm.devices.scsi import DiskAccess
    from utilityvm.guest.collect import Completed
    from utilityvm.guest.process import Process
    from utilityvm.kit.errors import (
        ConnectionLost,
        Corrupt,
        DeadlineExceeded,
        Exhausted,
        Exists,
        GuestError,
        HostError,
        InvalidOptions,
        NotFound,
        NoVPMem,
        OutputLimitExceeded,
        ProtocolError,
        StateError,
        Unknown,
        Unsupported,
        UtilityVMError,
    )
    from utilityvm.kit.trace import enable_opentelemetry
    from utilityvm.options.lcow import OptionsLCOW, TemplateConfig
    from utilityvm.options.network import BridgeNetwork, NamespaceNetwork, UserNetwork
    from utilityvm.options.wcow import OptionsWCOW, TemplateConfigWCOW
    from utilityvm.sandbox.sandbox import Result, Sandbox
    from utilityvm.schema.hns import HNSEndpoint, Namespace
    from utilityvm.schema.properties import Properties, PropertyType
    from utilityvm.schema.requests import ProcessorLimits
    from utilityvm.templates.pool import Pool, PoolStats
    from utilityvm.templates.template import Template, import_template, list_templates, open_template
    from utilityvm.vm.compose import create_lcow, create_wcow, restore
    from utilityvm.vm.fork import Forked
    from utilityvm.vm.host_options import (
        default_options_lcow,
        default_options_wcow,
        load_options_lcow,
        load_options_wcow,
        options_from_spec,
    )
    from utilityvm.vm.uvm import UtilityVM
    from utilityvm.wire.detached import DetachedProcess

__version__ = "0.1.0"

_HOME = {
    "Sandbox": "sandbox.sandbox",
    "Result": "sandbox.sandbox",
    "create_lcow": "vm.compose",
    "default_options_lcow": "vm.host_options",
    "load_options_lcow": "vm.host_options",
    "create_wcow": "vm.compose",
    "default_options_wcow": "vm.host_options",
    "load_options_wcow": "vm.host_options",
    "options_from_spec": "vm.host_options",
    "UtilityVM": "vm.uvm",
    "restore": "vm.compose",
    "Forked": "vm.fork",
    "open_template": "templates.template",
    "list_templates": "templates.template",
    "import_template": "templates.template",
    "Template": "templates.template",
    "Pool": "templates.pool",
    "PoolStats": "templates.pool",
    "TemplateConfig": "options.lcow",
    "TemplateConfigWCOW": "options.wcow",
    "Container": "containers.container",
    "ContainerExit": "containers.container",
    "OptionsLCOW": "options.lcow",
    "OptionsWCOW": "options.wcow",
    "DiskAccess": "devices.scsi",
    "Process": "guest.process",
    "DetachedProcess": "wire.detached",
    "Completed": "guest.collect",
    "ExitStatus": "compute.ports",
    "MachineStatistics": "compute.ports",
    "ProcessorLimits": "schema.requests",
    "Properties": "schema.properties",
    "PropertyType": "schema.properties",
    "UserNetwork": "options.network",
    "NamespaceNetwork": "options.network",
    "BridgeNetwork": "options.network",
    "HNSEndpoint": "schema.hns",
    "Namespace": "schema.hns",
    "enable_opentelemetry": "kit.trace",
} | dict.fromkeys(
    (
        "UtilityVMError",
        "InvalidOptions",
        "NotFound",
        "Exists",
        "StateError",
        "Exhausted",
        "NoVPMem",
        "Unsupported",
        "HostError",
        "GuestError",
        "ConnectionLost",
        "Unknown",
        "ProtocolError",
        "DeadlineExceeded",
        "OutputLimitExceeded",
        "Corrupt",
    ),
    "kit.errors",
)

__all__ = [  # noqa: RUF022 (in the order of use)
    "Sandbox",
    "Result",
    "create_lcow",
    "default_options_lcow",
    "load_options_lcow",
    "OptionsLCOW",
    "create_wcow",
    "default_options_wcow",
    "load_options_wcow",
    "OptionsWCOW",
    "options_from_spec",
    "UtilityVM",
    "Forked",
    "restore",
    "open_template",
    "list_templates",
    "import_template",
    "Template",
    "TemplateConfig",
    "TemplateConfigWCOW",
    "Pool",
    "PoolStats",
    "Container",
    "ContainerExit",
    "DiskAccess",
    "Process",
    "DetachedProcess",
    "Completed",
    "ExitStatus",
    "MachineStatistics",
    "ProcessorLimits",
    "Properties",
    "PropertyType",
    "UserNetwork",
    "NamespaceNetwork",
    "BridgeNetwork",
    "HNSEndpoint",
    "Namespace",
    "enable_opentelemetry",
    "UtilityVMError",
    "InvalidOptions",
    "NotFound",
    "Exists",
    "StateError",
    "Exhausted",
    "NoVPMem",
    "Unsupported",
    "HostError",
    "GuestError",
    "ConnectionLost",
    "Unknown",
    "ProtocolError",
    "DeadlineExceeded",
    "OutputLimitExceeded",
    "Corrupt",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'utilityvm' has no attribute {name!r}")
    value = getattr(import_module(f"utilityvm.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
