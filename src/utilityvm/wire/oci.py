"""The OCI runtime specification of a Linux container as structs, and what ExecuteProcess says of a process to each kind of guest.

Members and their order are those of the specification's Go types (version 1.2, and what 1.3 adds for Linux). What is not said is not
written; a member that the specification does not have is refused by its path. Sizes are in bytes, times of processors in microseconds,
unless a docstring says otherwise. Guests of Linux take a process whole for their containers; all others are told the parts that they know.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import field

from utilityvm.kit.errors import InvalidOptions, Problem, Unsupported


class _Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, rename="camel"):
    pass


class Box(_Part, frozen=True, kw_only=True):
    """The size of a terminal in characters."""

    height: int
    width: int


class User(_Part, frozen=True, kw_only=True):
    """Who a process runs as. `username`, a name or number with or without ``:group``, outranks the numbers in guests that know it."""

    uid: int
    gid: int
    umask: int | None = None
    additional_gids: list[int] = []
    username: str = ""


class Capabilities(_Part, frozen=True, kw_only=True):
    """Sets of capabilities by their kernel names."""

    bounding: list[str] = []
    effective: list[str] = []
    inheritable: list[str] = []
    permitted: list[str] = []
    ambient: list[str] = []


class Rlimit(_Part, frozen=True, kw_only=True):
    """One resource limit, e.g. of type ``RLIMIT_NOFILE``."""

    type: str
    hard: int
    soft: int


class Scheduler(_Part, frozen=True, kw_only=True):
    """How a process is scheduled, e.g. by the policy ``SCHED_BATCH``; times in nanoseconds."""

    policy: str
    nice: int = 0
    priority: int = 0
    flags: list[str] = []
    runtime: int = 0
    deadline: int = 0
    period: int = 0


class IoPriority(_Part, frozen=True, kw_only=True):
    """A process's place among those who wait for a disk, e.g. of the class ``IOPRIO_CLASS_IDLE``."""

    io_class: str = field(name="class")
    priority: int


class CpuAffinity(_Part, frozen=True, kw_only=True):
    """Processors of a process that is run in a container, before and after it is in the container's control group."""

    initial: str = ""
    final: str = ""


class OciProcess(_Part, frozen=True, kw_only=True):
    """What is run. `env` is ``NAME=value`` each; `command_line` is for Windows and outranks `args`."""

    terminal: bool = False
    console_size: Box | None = None
    user: User
    args: list[str] = []
    command_line: str = ""
    env: list[str] = []
    cwd: str
    capabilities: Capabilities | None = None
    rlimits: list[Rlimit] = []
    no_new_privileges: bool = False
    apparmor_profile: str = ""
    oom_score_adj: int | None = None
    scheduler: Scheduler | None = None
    selinux_label: str = ""
    io_priority: IoPriority | None = None
    exec_cpu_affinity: CpuAffinity | None = field(name="execCPUAffinity", default=None)


class Root(_Part, frozen=True, kw_only=True):
    """The root file system: a path in the guest, which is replaced where layers are given."""

    path: str = ""
    readonly: bool = False


class IdMapping(_Part, frozen=True, kw_only=True):
    """So many ids of a container, from one number on, and the number that they begin with outside."""

    container_id: int = field(name="containerID")
    host_id: int = field(name="hostID")
    size: int


class Mount(_Part, frozen=True, kw_only=True):
    """What is mounted at `destination`. The options are those of mount(8)."""

    destination: str
    type: str = ""
    source: str = ""
    options: list[str] = []
    uid_mappings: list[IdMapping] = []
    gid_mappings: list[IdMapping] = []


class Hook(_Part, frozen=True, kw_only=True):
    """A program that is run at a moment of a container's life; `timeout` in seconds."""

    path: str
    args: list[str] = []
    env: list[str] = []
    timeout: int | None = None


class Hooks(_Part, frozen=True, kw_only=True):
    """The programs of each moment, in their order."""

    prestart: list[Hook] = []
    create_runtime: list[Hook] = []
    create_container: list[Hook] = []
    start_container: list[Hook] = []
    poststart: list[Hook] = []
    poststop: list[Hook] = []


class DeviceRule(_Part, frozen=True, kw_only=True):
    """Which devices may be used; `access` has letters of ``rwm``. No number is all numbers."""

    allow: bool
    type: str = ""
    major: int | None = None
    minor: int | None = None
    access: str = ""


class MemoryLimits(_Part, frozen=True, kw_only=True):
    """Limits of memory; -1 is none. `swap` is memory and swap together."""

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None
    kernel: int | None = None
    kernel_tcp: int | None = field(name="kernelTCP", default=None)
    swappiness: int | None = None
    disable_oom_killer: bool | None = field(name="disableOOMKiller", default=None)
    use_hierarchy: bool | None = None
    check_before_update: bool | None = None


class CpuLimits(_Part, frozen=True, kw_only=True):
    """Shares of the processors, and which of them: `quota` microseconds in each `period`; `cpus` and `mems` are lists like ``0-3,7``."""

    shares: int | None = None
    quota: int | None = None
    burst: int | None = None
    period: int | None = None
    realtime_runtime: int | None = None
    realtime_period: int | None = None
    cpus: str = ""
    mems: str = ""
    idle: int | None = None


class PidsLimit(_Part, frozen=True, kw_only=True):
    """Most processes and threads."""

    limit: int


class WeightDevice(_Part, frozen=True, kw_only=True):
    """The weight of one disk."""

    major: int
    minor: int
    weight: int | None = None
    leaf_weight: int | None = None


class ThrottleDevice(_Part, frozen=True, kw_only=True):
    """Bytes or operations per second of one disk."""

    major: int
    minor: int
    rate: int


class BlockIo(_Part, frozen=True, kw_only=True):
    """Shares of the disks."""

    weight: int | None = None
    leaf_weight: int | None = None
    weight_device: list[WeightDevice] = []
    throttle_read_bps_device: list[ThrottleDevice] = []
    throttle_write_bps_device: list[ThrottleDevice] = []
    throttle_read_iops_device: list[ThrottleDevice] = field(name="throttleReadIOPSDevice", default=[])
    throttle_write_iops_device: list[ThrottleDevice] = field(name="throttleWriteIOPSDevice", default=[])


class HugepageLimit(_Part, frozen=True, kw_only=True):
    """Most bytes in pages of one size, e.g. ``2MB``."""

    page_size: str
    limit: int


class InterfacePriority(_Part, frozen=True, kw_only=True):
    """The priority of what is sent through one interface."""

    name: str
    priority: int


class NetworkLimits(_Part, frozen=True, kw_only=True):
    """How what is sent is marked."""

    class_id: int | None = field(name="classID", default=None)
    priorities: list[InterfacePriority] = []


class Rdma(_Part, frozen=True, kw_only=True):
    """Limits of one RDMA device."""

    hca_handles: int | None = None
    hca_objects: int | None = None


class Resources(_Part, frozen=True, kw_only=True):
    """Limits of a container. `unified` are files of its control group of version 2, and their content."""

    devices: list[DeviceRule] = []
    memory: MemoryLimits | None = None
    cpu: CpuLimits | None = None
    pids: PidsLimit | None = None
    block_io: BlockIo | None = field(name="blockIO", default=None)
    hugepage_limits: list[HugepageLimit] = []
    network: NetworkLimits | None = None
    rdma: dict[str, Rdma] = {}
    unified: dict[str, str] = {}


class Namespace(_Part, frozen=True, kw_only=True):
    """A namespace of a container by its `type` (``pid``, ``network``, ``mount``, …): its own, or the one at a `path` of the guest."""

    type: str
    path: str = ""


class Device(_Part, frozen=True, kw_only=True):
    """A device that a container has at `path`."""

    path: str
    type: str
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    uid: int | None = None
    gid: int | None = None


class NetDevice(_Part, frozen=True, kw_only=True):
    """A network interface that is moved into a container, and its name there."""

    name: str = ""


class SyscallArg(_Part, frozen=True, kw_only=True):
    """What an argument of a system call is compared with, e.g. by ``SCMP_CMP_EQ``."""

    index: int
    value: int
    value_two: int = 0
    op: str


class Syscall(_Part, frozen=True, kw_only=True):
    """What is done when one of these system calls is made with such arguments."""

    names: list[str]
    action: str
    errno_ret: int | None = None
    args: list[SyscallArg] = []


class Seccomp(_Part, frozen=True, kw_only=True):
    """Which system calls may be made."""

    default_action: str
    default_errno_ret: int | None = None
    architectures: list[str] = []
    flags: list[str] = []
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: list[Syscall] = []


class IntelRdt(_Part, frozen=True, kw_only=True):
    """Shares of a processor's caches."""

    clos_id: str = field(name="closID", default="")
    schemata: list[str] = []
    l3_cache_schema: str = ""
    mem_bw_schema: str = ""
    enable_cmt: bool = field(name="enableCMT", default=False)
    enable_mbm: bool = field(name="enableMBM", default=False)
    enable_monitoring: bool = False


class MemoryPolicy(_Part, frozen=True, kw_only=True):
    """From which nodes memory is taken."""

    mode: str
    nodes: str = ""
    flags: list[str] = []


class Personality(_Part, frozen=True, kw_only=True):
    """As which kernel Linux shows itself, e.g. ``LINUX32``."""

    domain: str
    flags: list[str] = []


class TimeOffset(_Part, frozen=True, kw_only=True):
    """How far a clock of a time namespace is from the guest's."""

    secs: int = 0
    nanosecs: int = 0


class Linux(_Part, frozen=True, kw_only=True):
    """What is Linux's own."""

    uid_mappings: list[IdMapping] = []
    gid_mappings: list[IdMapping] = []
    sysctl: dict[str, str] = {}
    resources: Resources | None = None
    cgroups_path: str = ""
    namespaces: list[Namespace] = []
    devices: list[Device] = []
    net_devices: dict[str, NetDevice] = {}
    seccomp: Seccomp | None = None
    rootfs_propagation: str = ""
    masked_paths: list[str] = []
    readonly_paths: list[str] = []
    mount_label: str = ""
    intel_rdt: IntelRdt | None = None
    memory_policy: MemoryPolicy | None = None
    personality: Personality | None = None
    time_offsets: dict[str, TimeOffset] = {}


class WindowsNetwork(_Part, frozen=True, kw_only=True):
    """The network of a container in a utility VM: the namespace that was made in its guest."""

    endpoint_list: list[str] = []
    allow_unqualified_dns_query: bool = field(name="allowUnqualifiedDNSQuery", default=False)
    dns_search_list: list[str] = field(name="DNSSearchList", default=[])
    network_shared_container_name: str = ""
    network_namespace: str = ""


class WindowsDevice(_Part, frozen=True, kw_only=True):
    """A device of the host that the container is to have."""

    id: str
    id_type: str


class Windows(_Part, frozen=True, kw_only=True):
    """What callers of the original say of a Linux container in the section for Windows; the rest of it has no meaning for one."""

    layer_folders: list[str] = []
    devices: list[WindowsDevice] = []
    resources: dict[str, object] = {}
    credential_spec: object = None
    servicing: bool = False
    ignore_flushes_during_boot: bool = False
    hyperv: dict[str, object] | None = None
    network: WindowsNetwork | None = None


class Spec(_Part, frozen=True, kw_only=True):
    """A container as its runtime is told of it."""

    oci_version: str
    process: OciProcess | None = None
    root: Root | None = None
    hostname: str = ""
    domainname: str = ""
    mounts: list[Mount] = []
    hooks: Hooks | None = None
    annotations: dict[str, str] = {}
    linux: Linux | None = None
    windows: Windows | None = None


def read_spec(value: object) -> Spec:
    """Return a container's specification of a struct, or of plain builtins as JSON has them; what is null was not said.

    Raises:
        InvalidOptions: a value of another type, or one that is missing; the message has its path.
        Unsupported: a member that the specification of a Linux container does not have; it would be ignored otherwise.
    """
    return value if isinstance(value, Spec) else _read(value, Spec, "spec")


def read_resources(value: object) -> Resources:
    """Return limits of a struct or of plain builtins. See `read_spec` for errors."""
    return value if isinstance(value, Resources) else _read(value, Resources, "resources")


def read_process(value: object) -> OciProcess:
    """Return a process of a struct or of plain builtins. See `read_spec` for errors."""
    return value if isinstance(value, OciProcess) else _read(value, OciProcess, "process")


def _read(value: Any, kind: type[Any], name: str) -> Any:  # noqa: ANN401 (one of the structs above)
    try:
        return msgspec.convert(_said(value), kind)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at ")
        message = f"{name}: {path.strip('`') or '$'}: {text}"
        if "unknown field" in text:
            raise Unsupported(message, hint="the OCI runtime specification of a Linux container has no such member") from error
        raise InvalidOptions(message, problems=[Problem(path.strip("`") or "$", "type", text)]) from error


def _said(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _said(part) for name, part in value.items() if part is not None}
    return [_said(part) for part in value] if isinstance(value, list | tuple) else value


def environment(env: list[str]) -> dict[str, str]:
    """Return the variables of ``NAME=value`` texts; one without a value is left out, as the original does."""
    pairs = (text.partition("=") for text in env)
    return {name: value for name, _, value in pairs if value}


def windows_command_line(args: list[str]) -> str:
    """Return `args` as the one text of which a program on Windows makes them again."""
    return " ".join(map(_quoted, args))


def _quoted(arg: str) -> str:
    """Quote one argument: a backslash is only special before a double quote, so only there it is doubled."""
    blank = not arg or " " in arg or "\t" in arg
    out, slashes = "", 0
    for letter in arg:
        if letter == '"':
            out += "\\" * (slashes + 1)
        slashes = slashes + 1 if letter == "\\" else 0
        out += letter
    return '"' + out + "\\" * slashes + '"' if blank else out
