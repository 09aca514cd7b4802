"""The deviations of deviations.toml as code: when a bug shows (a predicate on the input), and what is expected instead."""

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.parity.vectors import Vector

Case = Mapping[str, Any]
INITRD, VHD = 0, 1


@dataclass(frozen=True)
class Expectation:
    """What a deviation may change: the document's text and the VM's state, where there are any."""

    document: str | None
    vm: dict[str, Any] | None


@dataclass(frozen=True)
class Deviation:
    """One bug: `shows` in an input, and `ours` instead of the original's."""

    shows: Callable[[Case], bool]
    ours: Callable[[Expectation, Case], Expectation]


def declared() -> dict[str, str]:
    """Return the reason of each deviation by id, as deviations.toml declares them."""
    file = Path(__file__).with_suffix(".toml")
    return {entry["id"]: entry["reason"] for entry in tomllib.loads(file.read_text())["deviation"]}


def expectation(vector: Vector) -> tuple[Expectation, list[str]]:
    """Return what is expected of us, and the ids of the deviations that changed it."""
    expected = Expectation(bytes(vector.expect.document).decode() or None, vector.expect_vm)
    changed = []
    for name, deviation in DEVIATIONS.items():
        if vector.kind == "lcow" and deviation.shows(vector.input):
            ours = deviation.ours(expected, vector.input)
            if ours != expected:
                changed.append(name)
            expected = ours
    return expected, changed


def _has_vhdx_root(case: Case) -> bool:
    options = case["options"]
    return bool(options["PreferredRootFSType"] == VHD and options["RootFSFile"].lower().endswith(".vhdx"))


def _declare_vhdx(expected: Expectation, _: Case) -> Expectation:
    return _edit(expected, '"ImageFormat":"Vhd1"', '"ImageFormat":"Vhdx"')


def _host_processors(case: Case) -> int:
    """Return the host's processors as the original reads them (32 bits signed); where it cannot, a number no wish exceeds."""
    host = case["host"]
    count = host["logical_processors"]
    if "service_properties" in host:
        try:
            (topology,) = json.loads(host["service_properties"])["Properties"]
            count = (topology or {}).get("LogicalProcessorCount") or 0
        except (ValueError, LookupError, TypeError, AttributeError):
            count = 2**31 - 1
    return int(count - 2**32 if count >= 2**31 else count)


def _is_capped(case: Case) -> bool:
    return bool(case["options"]["ProcessorCount"] > _host_processors(case))


def _cap_nr_cpus(expected: Expectation, case: Case) -> Expectation:
    tail = " brd.rd_nr=0 pmtmr=0 -- "
    asked, capped = f" nr_cpus={case['options']['ProcessorCount']}{tail}", f" nr_cpus={_host_processors(case)}{tail}"
    return _edit(expected, asked, capped)


def _has_console(case: Case) -> bool:
    return bool(case["options"]["ConsolePipe"] or case["options"]["EnableGraphicsConsole"])


def _entropy_switch_to_init(expected: Expectation, _: Case) -> Expectation:
    return _edit(expected, r" -- sh -c \"-e 1 ", r" -- -e 1 sh -c \"")


def _edit(expected: Expectation, theirs: str, ours: str) -> Expectation:
    """Edit the text itself, so that every other byte of the original stays as it is."""
    if expected.document is None:
        return expected
    return replace(expected, document=expected.document.replace(theirs, ours, 1))


def _has_disk_root_elsewhere(case: Case) -> bool:
    return bool(case["options"]["PreferredRootFSType"] == VHD and case["options"]["BootFilesPath"])


def _full_path_in_slot(expected: Expectation, _: Case) -> Expectation:
    if expected.document is None or expected.vm is None:
        return expected
    path = json.loads(expected.document)["VirtualMachine"]["Devices"]["VirtualPMem"]["Devices"]["0"]["HostPath"]
    root, *others = expected.vm["vpmem_devices"]
    return replace(expected, vm={**expected.vm, "vpmem_devices": [{**root, "host_path": path}, *others]})


DEVIATIONS = {
    "bug-2": Deviation(_has_vhdx_root, _declare_vhdx),
    "bug-3": Deviation(_is_capped, _cap_nr_cpus),
    "bug-4": Deviation(_has_console, _entropy_switch_to_init),
    "bug-24": Deviation(_has_disk_root_elsewhere, _full_path_in_slot),
}
