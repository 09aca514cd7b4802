"""Annotations of an OCI specification that say what a utility VM, or a container in it, is to be: which option each is. Pure.

Names are the original's. In its namespace an annotation that it does not know is a mistake; other people's annotations are not looked at.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Final

import msgspec

from utilityvm.kit.errors import InvalidOptions, Problem, Unsupported
from utilityvm.options.lcow import INITRD_FILE, KERNEL_FILE, VHD_FILE, OptionsLCOW, RootFSType
from utilityvm.options.wcow import OptionsWCOW

NAMESPACE: Final = "io.microsoft.virtualmachine."
"""Where no annotation is foreign."""


class Value(StrEnum):
    """What an annotation's text must be."""

    NUMBER = "a number"
    NUMBER_OR_NONE = "a number; 0 says nothing"
    TRUTH = "`true` or `false`, in any case of letters"
    TEXT = "text"
    ROOT = "`initrd` or `vhd`"


class Guests(StrEnum):
    """For whose VMs it is."""

    BOTH = "Linux, Windows"
    LINUX = "Linux"
    WINDOWS = "Windows"


class Annotation(msgspec.Struct, frozen=True):
    """An annotation and the option that it is; without one it is about a container. `also` says what else it sets."""

    name: str
    option: str
    value: Value
    guests: Guests = Guests.BOTH
    also: str = ""


_TOPOLOGY: Final = f"{NAMESPACE}computetopology."
_LCOW: Final = f"{NAMESPACE}lcow."
_ROOT_FS: Final = f"{_LCOW}preferredrootfstype"

ANNOTATIONS: Final = (
    Annotation(f"{_TOPOLOGY}memory.sizeinmb", "memory_size_in_mb", Value.NUMBER_OR_NONE),
    Annotation(f"{_TOPOLOGY}memory.lowmmiogapinmb", "low_mmio_gap_in_mb", Value.NUMBER),
    Annotation(f"{_TOPOLOGY}memory.highmmiobaseinmb", "high_mmio_base_in_mb", Value.NUMBER),
    Annotation(f"{_TOPOLOGY}memory.highmmiogapinmb", "high_mmio_gap_in_mb", Value.NUMBER),
    Annotation(f"{_TOPOLOGY}memory.allowovercommit", "allow_overcommit", Value.TRUTH),
    Annotation(f"{_TOPOLOGY}memory.enabledeferredcommit", "enable_deferred_commit", Value.TRUTH),
    Annotation(f"{_TOPOLOGY}memory.enablecolddiscardhint", "enable_cold_discard_hint", Value.TRUTH, Guests.LINUX),
    Annotation(f"{_TOPOLOGY}processor.count", "processor_count", Value.NUMBER_OR_NONE),
    Annotation(f"{_TOPOLOGY}processor.limit", "processor_limit", Value.NUMBER_OR_NONE),
    Annotation(f"{_TOPOLOGY}processor.weight", "processor_weight", Value.NUMBER_OR_NONE),
    Annotation(f"{NAMESPACE}storageqos.bandwidthmaximum", "storage_qos_bandwidth_maximum", Value.NUMBER_OR_NONE),
    Annotation(f"{NAMESPACE}storageqos.iopsmaximum", "storage_qos_iops_maximum", Value.NUMBER_OR_NONE),
    Annotation(f"{NAMESPACE}devices.virtualpmem.maximumcount", "vpmem_device_count", Value.NUMBER, Guests.LINUX),
    Annotation(f"{NAMESPACE}devices.virtualpmem.maximumsizebytes", "vpmem_size_bytes", Value.NUMBER, Guests.LINUX),
    Annotation(_ROOT_FS, "preferred_root_fs_type", Value.ROOT, Guests.LINUX, f"`root_fs_file` is `{INITRD_FILE}` or `{VHD_FILE}`"),
    Annotation(
        f"{_LCOW}bootfilesrootpath", "boot_files_path", Value.TEXT, Guests.LINUX, "kernel and root file system are those found there"
    ),
    Annotation(f"{_LCOW}kerneldirectboot", "kernel_direct", Value.TRUTH, Guests.LINUX, f"false: `kernel_file` is `{KERNEL_FILE}`"),
    Annotation(f"{_LCOW}kernelbootoptions", "kernel_boot_options", Value.TEXT, Guests.LINUX),
    Annotation(f"{_LCOW}vpcienabled", "vpci_enabled", Value.TRUTH, Guests.LINUX),
    Annotation(
        f"{NAMESPACE}fullyphysicallybacked",
        "fully_physically_backed",
        Value.TRUTH,
        also="true: `allow_overcommit` is false, and a Linux guest has its root in the initrd and no persistent memory",
    ),
    Annotation(f"{NAMESPACE}disablecompartmentnamespace", "disable_compartment_namespace", Value.TRUTH, Guests.WINDOWS),
    Annotation(f"{NAMESPACE}useexternalgcsbridge", "external_guest_connection", Value.TRUTH),
    Annotation(f"{NAMESPACE}cpugroup.id", "cpu_group_id", Value.TEXT),
    Annotation(f"{NAMESPACE}saveastemplate", "is_template", Value.TRUTH),
    Annotation(f"{NAMESPACE}console.pipe", "console_pipe", Value.TEXT, Guests.LINUX),
    Annotation("io.microsoft.network.ncproxy", "network_config_proxy", Value.TEXT),
)
"""Every annotation that is an option."""

OF_CONTAINERS: Final[Mapping[str, str]] = {
    "io.kubernetes.cri.container-type": "`sandbox`: others may share its namespaces; `container`: it shares a sandbox's; none: it is alone",
    "io.kubernetes.cri.sandbox-id": "the id of that sandbox; `pod=` of `create_container` sets both",
    "io.microsoft.lcow.userstr": "who its process runs as, by name or number, with or without `:group`; a user's `username` wins over it",
    f"{_LCOW}privileged": "`true`: it has all devices of its guest",
}
"""Annotations that the guest's agent looks at when a container is made, and what they say."""

NOT_CARRIED_OUT: Final = (
    f"{NAMESPACE}templateid",
    f"{NAMESPACE}kerneldrivers",
    f"{NAMESPACE}no_security_hardware",
    f"{NAMESPACE}dump-directory-path",
    f"{NAMESPACE}fileshares.disablewritable",
    f"{NAMESPACE}resource-partition-id",
    f"{NAMESPACE}storage.scratch.encrypted",
    f"{_TOPOLOGY}processor.numa.max-processors-per-node",
    f"{_TOPOLOGY}processor.numa.max-size-per-node",
    f"{_TOPOLOGY}numa.preferred-physical-nodes",
    f"{_TOPOLOGY}numa.mapped-physical-nodes",
    f"{_TOPOLOGY}numa.count-of-processors",
    f"{_TOPOLOGY}numa.count-of-memory-blocks",
    f"{_LCOW}hostnetwork",
    f"{_LCOW}timesync.disable",
    f"{_LCOW}vpmem.nomultimapping",
    f"{_LCOW}dmverity-create-args",
    f"{_LCOW}dmverity-mode",
    f"{_LCOW}dmverity-rootfs-vhd",
    f"{_LCOW}gueststatefile",
    f"{_LCOW}hcl-enabled",
    f"{_LCOW}securitypolicy",
    f"{_LCOW}securitypolicy.env",
    f"{_LCOW}enforcer",
    f"{_LCOW}amd-certificate",
    f"{_LCOW}uvm-reference-info-file",
    f"{_LCOW}uvm-hash-envelope-reference-info-file",
    f"{_LCOW}extra-vsock-ports",
    f"{_LCOW}writable-overlay-directories",
    f"{_LCOW}network.policybasedrouting",
    f"{_LCOW}extra-exec-command-args",
    f"{NAMESPACE}wcow.gueststatefile",
    f"{NAMESPACE}wcow.securitypolicy",
    f"{NAMESPACE}wcow.enforcer",
    f"{NAMESPACE}wcow.amd-certificate",
    f"{NAMESPACE}wcow.isolation_type",
    f"{NAMESPACE}wcow.no_secure_boot",
    f"{NAMESPACE}wcow.writable_efi",
    f"{NAMESPACE}wcow.virtualSMB.nodirectmap",
    f"{NAMESPACE}wcow.timezone.noinherit",
    f"{NAMESPACE}wcow.additional-reg-keys",
    f"{NAMESPACE}forwardlogs.sources",
    f"{NAMESPACE}forwardlogs.enable",
    f"{NAMESPACE}forwardlogs.defaultsources.enable",
    "io.microsoft.assigneddevice.kerneldrivers",
    "io.microsoft.container.gpu.capabilities",
    "io.microsoft.container.processdumplocation",
    "io.microsoft.cri.tenant-sandbox-id",
    "io.microsoft.cri.virtual-pod-id",
    "io.microsoft.disable-unsafe-operations",
    "io.microsoft.lcow.gpuvhdpath",
    "io.microsoft.migration.source-container-id",
    "io.microsoft.migration.support-enabled",
    "io.microsoft.network.ncproxy.containerid",
    "io.microsoft.wcow.debug",
    "io.microsoft.wcow.debug_data_path",
)
"""Annotations of the original that ask for what we do not have: refused by name, never ignored."""

_BY_NAME: Final = {annotation.name: annotation for annotation in ANNOTATIONS}
_WORDS: Final = {"initrd": RootFSType.INITRD, "vhd": RootFSType.VHD}
_FILES: Final = {RootFSType.INITRD: INITRD_FILE, RootFSType.VHD: VHD_FILE}

_MIB: Final = 1 << 20
_RESOURCES: Final = {
    "memory_size_in_mb": ("memory", "limit"),
    "processor_count": ("cpu", "count"),
    "processor_limit": ("cpu", "maximum"),
    "processor_weight": ("cpu", "shares"),
    "storage_qos_iops_maximum": ("storage", "iops"),
    "storage_qos_bandwidth_maximum": ("storage", "bps"),
}
"""Members of a specification's Windows.Resources that are options as well, where no annotation says them."""


def options_said(annotations: Mapping[str, str], resources: Mapping[str, object], *, windows: bool) -> dict[str, object]:
    """Return the options that a specification says for the VM of its container, by name; what they imply is said as well.

    `resources` is its section Windows.Resources: an annotation wins over it.

    Raises:
        InvalidOptions: annotations that nobody knows, or whose text makes no sense; `problems` has all of it.
        Unsupported: annotations of the original that are not carried out.
    """
    said: dict[str, object] = {name: value for name, value in _of_resources(resources).items() if value}
    said |= {_BY_NAME[name].option: value for name, value in _read(annotations, windows=windows).items()}
    if said.get("kernel_direct") is False:
        said["kernel_file"] = KERNEL_FILE
    if _ROOT_FS in annotations:
        said["root_fs_file"] = _FILES[_WORDS[annotations[_ROOT_FS]]]
    if said.get("fully_physically_backed") is True:
        said["allow_overcommit"] = False
        if not windows:
            said |= {"preferred_root_fs_type": RootFSType.INITRD, "root_fs_file": INITRD_FILE, "vpmem_device_count": 0}
    return said


def check_annotations(annotations: Mapping[str, str], options: OptionsLCOW | OptionsWCOW) -> None:
    """Refuse a container's annotations that its VM, which was made with `options`, cannot carry out or is not as they say.

    Raises:
        InvalidOptions, Unsupported: as `options_said`; or one says another thing than the VM's option.
    """
    problems = []
    for name, value in _read(annotations, windows=isinstance(options, OptionsWCOW)).items():
        option = _BY_NAME[name].option
        if (has := getattr(options, option)) != value:
            said = f"{name} says {value!r:.100}, and the VM has {option} {has!r:.100}: it was made before its container"
            problems.append(Problem(_path(name), "vm", said))
    if problems:
        raise InvalidOptions(problems[0].message, problems=problems)


def _read(annotations: Mapping[str, str], *, windows: bool) -> dict[str, object]:
    """Return the values of the annotations that are options and say something."""
    if problems := list(_mistakes(annotations, windows=windows)):
        kind = Unsupported if all(problem.rule == "not carried out" for problem in problems) else InvalidOptions
        if kind is Unsupported:
            raise Unsupported(problems[0].message, hint="docs/reference/annotations.md lists what is carried out")
        raise InvalidOptions(problems[0].message, problems=problems, hint="docs/reference/annotations.md lists them all")
    known = ((name, _BY_NAME[name]) for name in annotations if name in _BY_NAME)
    values = {name: _value(annotation.value, annotations[name]) for name, annotation in known}
    return {name: value for name, value in values.items() if value != 0 or _BY_NAME[name].value is not Value.NUMBER_OR_NONE}


def _mistakes(annotations: Mapping[str, str], *, windows: bool) -> Iterator[Problem]:
    other = Guests.LINUX if windows else Guests.WINDOWS
    for name, text in annotations.items():
        annotation = _BY_NAME.get(name)
        if name in NOT_CARRIED_OUT:
            yield Problem(_path(name), "not carried out", f"annotation {name} is not carried out")
        elif annotation is None and name.startswith(NAMESPACE) and name not in OF_CONTAINERS:
            yield Problem(_path(name), "unknown", f"annotation {name[:200]!r} is not known{_meant(name)}")
        elif annotation is not None and annotation.guests is other:
            yield Problem(_path(name), "guest", f"annotation {name} is for guests of {annotation.guests.value}")
        elif annotation is not None and _value(annotation.value, text) is None:
            yield Problem(_path(name), "value", f"annotation {name}: {text[:100]!r} is not {annotation.value.value.replace('`', '')}")


def _value(kind: Value, text: str) -> object:
    """Return the value of a text, None when it makes no sense."""
    match kind:
        case Value.TRUTH:
            return {"true": True, "false": False}.get(text.lower())
        case Value.TEXT:
            return text
        case Value.ROOT:
            return _WORDS.get(text)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 21 else None


def _of_resources(resources: Mapping[str, object]) -> dict[str, int]:
    """Return what the section says, by option; memory in MiB, as the original rounds it."""
    said = {}
    for option, (part, member) in _RESOURCES.items():
        of = resources.get(part)
        value = of.get(member) if isinstance(of, Mapping) else None
        if isinstance(value, int) and not isinstance(value, bool):
            said[option] = value // _MIB if option == "memory_size_in_mb" else value
    return said


def _path(name: str) -> str:
    return f"$.annotations[{name[:200]!r}]"


def _meant(name: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415  # only where something is wrong

    known = [other.removeprefix(NAMESPACE) for other in (*_BY_NAME, *OF_CONTAINERS) if other.startswith(NAMESPACE)]
    close = get_close_matches(name.removeprefix(NAMESPACE)[:200], known, n=1)
    return f"; did you mean {NAMESPACE}{close[0]}?" if close else ""
