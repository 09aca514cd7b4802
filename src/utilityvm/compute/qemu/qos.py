"""The bounds that all disks of a machine share: one throttle group of QEMU's, and a filter over each disk. Pure."""

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from utilityvm.kit.errors import Problem
from utilityvm.schema.devices import StorageQoS

GROUP: Final = "storage-qos"
"""The throttle group's name in QEMU."""

_MOST: Final = 10**15  # QEMU's own bound on each


def group_words(qos: StorageQoS | None) -> Iterator[str]:
    """Yield the words of QEMU's command line that make the group, if there are bounds."""
    if is_bounded(qos) and qos is not None:
        said = {"iops-total": qos.iops_maximum, "bps-total": qos.bandwidth_maximum}
        limits = {name: value for name, value in said.items() if value}
        yield from ("-object", msgspec.json.encode({"qom-type": "throttle-group", "id": GROUP, "limits": limits}).decode())


def is_bounded(qos: StorageQoS | None) -> bool:
    """Whether disks of a machine with this in its document are to be `throttled`."""
    return qos is not None and bool(qos.iops_maximum or qos.bandwidth_maximum)


def throttled(node: Mapping[str, object]) -> Mapping[str, object]:
    """Return a block node with the filter over it, which has its name; it is the disk's that the guest sees."""
    outer = {name: node[name] for name in ("node-name", "read-only", "discard") if name in node}
    inner = {name: value for name, value in node.items() if name != "node-name"}
    return {"driver": "throttle", "throttle-group": GROUP, **outer, "file": inner}


def wrong_qos(qos: StorageQoS | None, path: str) -> Iterator[Problem]:
    """Yield what is wrong with the numbers; `path` is that of their object."""
    for name, value in (("IopsMaximum", qos.iops_maximum), ("BandwidthMaximum", qos.bandwidth_maximum)) if qos else ():
        if not 0 <= value <= _MOST:
            yield Problem(f"{path}.{name}", "invalid", f"{value}: from 1 to {_MOST} a second; 0 for no limit")
