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


def go_text(value: object) -> str:
    """Encode as Go does, independently of the code under test."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _has_vhdx_root(case: Case) -> bool:
    options = case["options"]
    return bool(options["PreferredRootFSType"] == VHD and options["RootFSFile"].lower().endswith(".vhdx"))


def _declare_vhdx(expected: Expectation, _: Case) -> Expectation:
    if expected.document is None:
        return expected
    document = json.loads(expected.document)
    document["VirtualMachine"]["Devices"]["VirtualPMem"]["Devices"]["0"]["ImageFormat"] = "Vhdx"
    return replace(expected, document=go_text(document))


def _host_processors(case: Case) -> int:
    """Return the host's processors as the original reads them, or a number no wish exceeds where it cannot."""
    host = case["host"]
    count = host["logical_processors"]
    if "service_properties" in host:
        properties = json.loads(host["service_properties"]).get("Properties", [])
        count = properties[0].get("LogicalProcessorCount", 0) if len(properties) == 1 else 2**31 - 1
    return int(count - 2**32 if count >= 2**31 else count)


def _is_capped(case: Case) -> bool:
    return bool(case["options"]["ProcessorCount"] > _host_processors(case))


def _cap_nr_cpus(expected: Expectation, case: Case) -> Expectation:
    tail = " brd.rd_nr=0 pmtmr=0 -- "
    asked, capped = f" nr_cpus={case['options']['ProcessorCount']}{tail}", f" nr_cpus={_host_processors(case)}{tail}"
    return _edit_command_line(expected, lambda line: line.replace(asked, capped, 1))


def _has_console(case: Case) -> bool:
    return bool(case["options"]["ConsolePipe"] or case["options"]["EnableGraphicsConsole"])


def _entropy_switch_to_init(expected: Expectation, _: Case) -> Expectation:
    return _edit_command_line(expected, lambda line: line.replace(' -- sh -c "-e 1 ', ' -- -e 1 sh -c "', 1))


def _edit_command_line(expected: Expectation, edit: Callable[[str], str]) -> Expectation:
    if expected.document is None:
        return expected
    document = json.loads(expected.document)
    chipset = document["VirtualMachine"]["Chipset"]
    boot, name = (chipset["Uefi"]["BootThis"], "OptionalData") if "Uefi" in chipset else (chipset["LinuxKernelDirect"], "KernelCmdLine")
    boot[name] = edit(boot[name])
    return replace(expected, document=go_text(document))


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
