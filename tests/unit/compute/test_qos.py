"""Bounds of all disks together, in QEMU's words."""

import json

from utilityvm.compute.qemu.qos import GROUP, group_words, is_bounded, throttled, wrong_qos
from utilityvm.schema.devices import StorageQoS


def test_the_group_has_the_bounds_that_were_said_and_no_others() -> None:
    word, group = group_words(StorageQoS(iops_maximum=50))
    assert word == "-object"
    assert json.loads(group) == {"qom-type": "throttle-group", "id": GROUP, "limits": {"iops-total": 50}}
    _, both = group_words(StorageQoS(iops_maximum=50, bandwidth_maximum=1 << 20))
    assert json.loads(both)["limits"] == {"iops-total": 50, "bps-total": 1 << 20}


def test_without_bounds_there_is_no_group() -> None:
    for qos in (None, StorageQoS()):
        assert not list(group_words(qos))
        assert not is_bounded(qos)
    assert is_bounded(StorageQoS(bandwidth_maximum=1))


def test_the_filter_has_the_disks_name_and_the_disk_is_below_it() -> None:
    node = {"driver": "raw", "node-name": "disk", "read-only": True, "discard": "unmap", "file": {"driver": "file", "filename": "/f"}}
    assert throttled(node) == {
        "driver": "throttle",
        "throttle-group": GROUP,
        "node-name": "disk",
        "read-only": True,
        "discard": "unmap",
        "file": {"driver": "raw", "read-only": True, "discard": "unmap", "file": {"driver": "file", "filename": "/f"}},
    }


def test_a_number_that_qemu_does_not_take_is_refused_by_name() -> None:
    assert [problem.path for problem in wrong_qos(StorageQoS(iops_maximum=-1, bandwidth_maximum=1 << 60), "$")] == [
        "$.IopsMaximum",
        "$.BandwidthMaximum",
    ]
    assert not list(wrong_qos(StorageQoS(iops_maximum=1, bandwidth_maximum=10**15), "$"))
