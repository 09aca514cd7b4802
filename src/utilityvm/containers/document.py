"""What a Linux guest is told of a container: the specification as the guest is to have it, and the document around it. Pure.

Semantics: the original's LCOW container document. Other agents than ours get the specification without what they cannot carry out, as the
original's get it; ours gets all of it.
"""

from collections.abc import Iterator, Mapping
from typing import Final, NewType

import msgspec
from msgspec import field
from msgspec.structs import replace

from utilityvm.kit.errors import InvalidOptions, Problem, UtilityVMError
from utilityvm.kit.ids import check_name
from utilityvm.schema.container import HostedSystem
from utilityvm.schema.version import Version
from utilityvm.wire.oci import Linux, Namespace, OciProcess, Root, Spec, Windows, WindowsNetwork, read_process

ContainerId = NewType("ContainerId", str)
"""What a container is called in its VM, made by `parse_container_id`: it becomes part of paths in the guest."""

KIND: Final = "io.kubernetes.cri.container-type"
"""Annotation that says what a container is to a pod: ``sandbox`` or ``container``; none: it stands alone."""

POD: Final = "io.kubernetes.cri.sandbox-id"
"""Annotation with the id of the pod's sandbox."""

_FOLDER: Final = "/run/gcs/c"
_SHARED: Final = {"network": "net", "ipc": "ipc", "uts": "uts"}
"""Namespaces that the containers of a pod share, and their names below /proc/PID/ns."""


class LcowContainer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The document: where the container's files are in the guest, what is run, and where what it writes goes."""

    schema_version: Version = field(name="SchemaVersion")
    oci_bundle_path: str = field(name="OciBundlePath")
    oci_specification: Spec = field(name="OciSpecification")
    scratch_dir_path: str = field(name="ScratchDirPath", default="")


def parse_container_id(text: str) -> ContainerId:
    """Check a caller's id of a container. See `kit.ids.check_name` for errors."""
    check_name(text, f"id {text!r:.200} cannot name a container", "$.id", "id")
    return ContainerId(text)


def folder(container_id: ContainerId) -> str:
    """Return the container's folder in the guest."""
    return f"{_FOLDER}/{container_id}"


def is_document(wish: object) -> bool:
    """Whether a wish is a document already, in the guest's or the host service's own shape, and no OCI specification."""
    return isinstance(wish, LcowContainer | HostedSystem) or (isinstance(wish, Mapping) and "SchemaVersion" in wish)


def process_of(document: object) -> OciProcess | None:
    """Return the first process that a caller's own document has, None when it has none that we can read."""
    if isinstance(document, LcowContainer):
        return document.oci_specification.process
    spec = document.get("OciSpecification") if isinstance(document, Mapping) else None
    process = spec.get("process") if isinstance(spec, Mapping) else None
    try:
        return None if process is None else read_process(process)
    except UtilityVMError:  # what we cannot read the guest perhaps can
        return None


def check(spec: Spec, *, layers: bool, scratch: bool) -> None:
    """Refuse a specification of which no container can be made; `layers` for its root, and a `scratch` disk, are given or not.

    Raises:
        InvalidOptions: `problems` has all that is wrong.
    """
    if problems := list(_mistakes(spec, layers=layers, scratch=scratch)):
        raise InvalidOptions(f"spec: {problems[0].message}", problems=problems)


def _mistakes(spec: Spec, *, layers: bool, scratch: bool) -> Iterator[Problem]:
    if spec.process is None:
        yield Problem("$.process", "missing", "process is missing: it says what the container runs")
    elif not spec.process.args:
        yield Problem("$.process.args", "empty", "process.args is empty: the first word is the program")
    elif not spec.process.cwd.startswith("/"):
        yield Problem("$.process.cwd", "path", f"process.cwd {spec.process.cwd!r} is no absolute path")
    if not layers and (spec.root is None or not spec.root.path.startswith("/")):
        yield Problem("$.root.path", "missing", "there are no layers, and root.path is no absolute path in the guest")
    if scratch and not layers:
        yield Problem("$.root.path", "scratch", "a scratch disk is for layers, and there are none: root.path is used as it is")
    kind = spec.annotations.get(KIND)
    if kind not in {None, "sandbox", "container"}:
        yield Problem(f"$.annotations[{KIND!r}]", "word", f"unsupported '{KIND}': '{kind}'")
    if kind == "container" and not spec.annotations.get(POD):
        yield Problem(f"$.annotations[{POD!r}]", "missing", f"unsupported '{POD}': '{spec.annotations.get(POD, '')}'")
    if kind == "container" and spec.hostname:
        yield Problem("$.hostname", "pod", f"workload container must not change hostname: {spec.hostname}")


def network_of(spec: Spec) -> str:
    """Return the network namespace of the guest that a container is to have, ``""`` for none: one of a pod is in its sandbox's."""
    named = spec.windows.network.network_namespace if spec.windows and spec.windows.network else ""
    return "" if spec.annotations.get(KIND) == "container" else named


def in_pod(spec: Spec, pod_id: ContainerId) -> Spec:
    """Return a specification of a container in the pod of this sandbox; our agent gives it the sandbox's namespaces and host name."""
    return replace(spec, annotations=spec.annotations | {KIND: "container", POD: pod_id})


def joined(spec: Spec, pid: int) -> Spec:
    """Return a specification with the network, IPC and UTS namespaces of a process in the guest: other agents do not give them.

    Those that the specification takes from elsewhere by a path stay.
    """
    linux = spec.linux or Linux()
    own = {namespace.type: namespace for namespace in linux.namespaces}
    shared = {kind: Namespace(type=kind, path=f"/proc/{pid}/ns/{name}") for kind, name in _SHARED.items()}
    namespaces = own | {kind: there for kind, there in shared.items() if kind not in own or not own[kind].path}
    return replace(spec, linux=replace(linux, namespaces=list(namespaces.values())))


def document(spec: Spec, container_id: ContainerId, *, root: Root, scratch_path: str, ours: bool) -> LcowContainer:
    """Return the document of a container whose root file system is at `root` in the guest, and whose agent is `ours` or another."""
    spec = replace(spec, root=root, windows=_for_linux(spec.windows), linux=replace(spec.linux or Linux(), cgroups_path=""))
    return LcowContainer(
        schema_version=Version(major=2, minor=1),
        oci_bundle_path=folder(container_id),
        oci_specification=spec if ours else _for_others(spec),
        scratch_dir_path=scratch_path,
    )


def _for_linux(windows: Windows | None) -> Windows | None:
    """Return what a Linux guest is told of the section for Windows: its network's namespace, and devices."""
    if windows is None:
        return None
    network = windows.network.network_namespace if windows.network else ""
    if not network and not windows.devices:
        return None
    return Windows(devices=windows.devices, network=WindowsNetwork(network_namespace=network) if network else None)


def _for_others(spec: Spec) -> Spec:
    """Return the specification as the original hands it over."""
    linux = replace(spec.linux or Linux(), seccomp=None)
    if (limits := linux.resources) is not None:
        bare = replace(limits, devices=[], pids=None, block_io=None, hugepage_limits=[], network=None)
        linux = replace(linux, resources=bare)
    return replace(spec, hooks=None, linux=linux)
