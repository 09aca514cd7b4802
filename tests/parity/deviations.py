"""The deviations of deviations.toml as code: when a bug shows (a predicate on the input), and what is expected instead."""

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.parity.vectors import Vector
from utilityvm.kit.errors import HostError
from utilityvm.kit.gojson import as_go
from utilityvm.schema import json as law
from utilityvm.schema.service import ProcessorTopology, ServiceProperties

Case = Mapping[str, Any]
INITRD, VHD = 0, 1


PANIC = "panic: "


@dataclass(frozen=True)
class Expectation:
    """What a deviation may change: the document's text, the VM's state, the errors; what crashed begins with `PANIC`."""

    document: str | None
    vm: dict[str, Any] | None
    error: str | None
    verify: str | None


@dataclass(frozen=True)
class Deviation:
    """One bug: `shows` in an input for a guest of `kind` (of any, when there is none), and `ours` instead of the original's.

    The original `crashes` of it, `fails` or goes on.
    """

    shows: Callable[[Case], bool]
    ours: Callable[[Expectation, Case], Expectation]
    kind: str = "lcow"
    crashes: bool = False
    fails: bool = False

    def is_for(self, vector: Vector) -> bool:
        """Whether a vector's guest is of its kind and the bug shows in its input."""
        return vector.kind in ({self.kind} if self.kind else {"lcow", "wcow"}) and self.shows(vector.input)


def declared() -> dict[str, str]:
    """Return the reason of each deviation by id, as deviations.toml declares them."""
    file = Path(__file__).with_suffix(".toml")
    return {entry["id"]: entry["reason"] for entry in tomllib.loads(file.read_text())["deviation"]}


def expectation(vector: Vector) -> tuple[Expectation, list[str]]:
    """Return what is expected of us, and the ids of the deviations that changed it."""
    expected = _originals(vector)
    changed = []
    for name, deviation in DEVIATIONS.items():
        if deviation.is_for(vector):
            ours = deviation.ours(expected, vector.input)
            if ours != expected:
                changed.append(name)
            expected = ours
    return expected, changed


def _originals(vector: Vector) -> Expectation:
    expect, verified = vector.expect, vector.expect_verify
    error = PANIC + expect.message if expect.panic else expect.error
    verify = None if verified is None else PANIC if verified.panic else verified.error
    return Expectation(bytes(expect.document).decode() or None, vector.expect_vm, error, verify)


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


# -- The host's processors ----------------------------------------------------------------------------------------------


def _words_about_the_topology(case: Case) -> str:
    """Return what we say of an answer of the host service that cannot be read; ``""`` when it can."""
    try:
        properties = law.decode_answer(case["host"].get("service_properties") or "{}", ServiceProperties).properties
        if len(properties) == 1:
            law.decode_answer(bytes(properties[0]), ProcessorTopology)
    except HostError as error:
        return error.message
    return ""


def _cannot_read_the_topology(case: Case) -> bool:
    return bool(_words_about_the_topology(case))


def _in_our_words(expected: Expectation, case: Case) -> Expectation:
    for step in ("failed to retrieve processor and processor topology information: ", "failed to unmarshal host processor topology: "):
        before, found, _ = (expected.error or "").partition(step)
        if found:
            return replace(expected, error=before + step + _words_about_the_topology(case))
    return expected


# -- Windows guests -----------------------------------------------------------------------------------------------------


def _template(case: Case) -> Any:  # noqa: ANN401 (JSON)
    """Return the template of a clone; None without one, which is also one whose options are a nil pointer."""
    config = case["options"]["TemplateConfig"] if case["options"]["IsClone"] else None
    return None if config is None or config["CreateOpts"].get("Options", ...) is None else config


def _resources(case: Case, kind: str) -> list[Any]:
    return [resource for resource in (_template(case) or {"Resources": ()})["Resources"] or () if resource["type"] == kind]


def _passes_until_the_template(case: Case) -> bool:
    options = case["options"]
    return not (options["EnableDeferredCommit"] and not options["AllowOvercommit"]) and len(options["LayerFolders"] or ()) >= 2


def _has_no_template(case: Case) -> bool:
    return bool(case["options"]["IsClone"] and _template(case) is None and _passes_until_the_template(case))


def _wants_template(expected: Expectation, _: Case) -> Expectation:
    if expected.verify != PANIC:
        return expected
    text = "template config can not be nil when creating clone"
    return replace(expected, error=f"UVM options incorrect: {text}", verify=text)


def _last_at_each_slot(case: Case) -> dict[tuple[int, int], Any]:
    return {(disk["Controller"], disk["LUN"]): disk for disk in _resources(case, "SCSIMount")}


def _loses_of_a_disk(case: Case) -> bool:
    disks = _last_at_each_slot(case).values()
    return not case["options"]["IsClone"] or any(disk["ReadOnly"] or not disk["AttachmentType"] for disk in disks)


def _whole_disks(expected: Expectation, case: Case) -> Expectation:
    if expected.document is None or expected.vm is None:
        return expected
    locations = [{**place, "attachment_type": place["attachment_type"] or "VirtualDisk"} for place in expected.vm["scsi_locations"]]
    document = json.loads(expected.document)
    for (controller, lun), disk in _last_at_each_slot(case).items():
        attachments = document["VirtualMachine"]["Devices"]["Scsi"][str(controller)]["Attachments"]
        told = {"Type": disk["AttachmentType"] or "VirtualDisk", "Path": attachments[str(lun)]["Path"]}
        attachments[str(lun)] = told | ({"ReadOnly": True} if disk["ReadOnly"] else {})
    text = as_go(json.dumps(document, ensure_ascii=False, separators=(",", ":")))
    return replace(expected, document=text, vm={**expected.vm, "scsi_locations": locations})


def _has_shares(case: Case) -> bool:
    return bool(_resources(case, "VSMBShare"))


def _shares_under_their_keys(expected: Expectation, case: Case) -> Expectation:
    if expected.vm is None:
        return expected
    tables: dict[str, dict[str, Any]] = {"vsmb_dir_shares": {}, "vsmb_file_shares": {}}
    for share in _resources(case, "VSMBShare"):
        key = f"{share['HostPath']}-{'true' if share['Options']['ReadOnly'] else 'false'}"
        entry = {"name": share["Name"], "host_path": share["HostPath"], "guest_path": share["GuestPath"], "ref_count": 1}
        tables["vsmb_file_shares" if share["AllowedFiles"] else "vsmb_dir_shares"][key] = entry
    return replace(expected, vm={**expected.vm, **tables})


def _strange_slots(case: Case) -> list[Any]:
    return [disk for disk in _resources(case, "SCSIMount") if not (0 <= disk["Controller"] < 4 and 0 <= disk["LUN"] < 64)]


def _has_a_strange_slot(case: Case) -> bool:
    return bool(_strange_slots(case))


def _names_the_slot(expected: Expectation, case: Case) -> Expectation:
    if not (expected.error or "").startswith(PANIC):
        return expected
    disk = _strange_slots(case)[0]
    place = f"{disk['Controller']}:{disk['LUN']} on a SCSI controller for {disk['HostPath']}"
    return replace(expected, error=f"failed while cloning: no place {place}: controllers are 0 to 3, LUNs 0 to 63")


DEVIATIONS = {
    "bug-1": Deviation(_has_no_template, _wants_template, kind="wcow", crashes=True),
    "bug-2": Deviation(_has_vhdx_root, _declare_vhdx),
    "bug-3": Deviation(_is_capped, _cap_nr_cpus),
    "bug-4": Deviation(_has_console, _entropy_switch_to_init),
    "bug-13": Deviation(_has_shares, _shares_under_their_keys, kind="wcow"),
    "bug-14": Deviation(_loses_of_a_disk, _whole_disks, kind="wcow"),
    "scsi-place": Deviation(_has_a_strange_slot, _names_the_slot, kind="wcow", crashes=True),
    "bug-24": Deviation(_has_disk_root_elsewhere, _full_path_in_slot),
    "topology-words": Deviation(_cannot_read_the_topology, _in_our_words, kind="", fails=True),
}
