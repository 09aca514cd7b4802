"""The runner must fail when anything that a vector states is not so, and must refuse a folder it cannot use."""

import json
import os
import subprocess  # noqa: TID251  the runner is tested as the program that `make parity` starts
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.parity.runner import VECTORS, main

ROOT = Path(__file__).parents[2]
Json = dict[str, Any]


def lines_of(file: str) -> list[str]:
    return (VECTORS / f"{file}.json").read_text().splitlines()


def first_vector(file: str, wanted: Callable[[Json], bool]) -> str:
    """The text of a file's first vector that is wanted, its bytes untouched."""
    return next(text for line in lines_of(file) if (text := line.rstrip(",")).startswith("{") and wanted(json.loads(text)))


def write(folder: Path, file: str, *vectors: str) -> Path:
    (folder / f"{file}.json").write_text(f"[{','.join(vectors)}]")
    return folder


def plain(vector: Json) -> bool:
    return bool(vector["name"] == "win/base-vhd")


def named(name: str) -> Callable[[Json], bool]:
    return lambda vector: bool(vector["name"] == name)


def escaped(vector: Json) -> bool:
    return "&" in str(vector["expect"])


def anything(_: Json) -> bool:
    return True


FRAME = '{"dir":"host->guest","type":1,"type_name":"","id":0,"size":16,"payload":null}'
CORRUPTIONS = {
    "a byte of the document": ("lcow_docs", plain, '"Count":2', '"Count":3'),
    "the order of the document's members": ("lcow_docs", plain, '"Major":2,"Minor":1', '"Minor":1,"Major":2'),
    "an escape of the document": ("lcow_docs", escaped, "\\u0026", "&"),
    "a device in the VM's state": ("lcow_docs", plain, '"uvm_path":"/"', '"uvm_path":"/x"'),
    "a listener": ("lcow_docs", plain, "0000006d-facb", "0000006e-facb"),
    "a flag of the VM's state": ("lcow_docs", plain, '"physically_backed":false', '"physically_backed":true'),
    "a warning's number": ("lcow_docs", lambda v: "expect_warnings" in v, '"assigned":', '"assigned":1'),
    "an effect": ("lcow_docs", lambda v: "expect_effects" in v, '"op":"dial_pipe"', '"op":"mkdir"'),
    "a folder that is made": ("wcow_docs", named("win/base"), '{"op":"mkdir"', '{"op":"rmdir"'),
    "a disk that is copied": ("wcow_docs", named("win/base"), '"op":"copy_file","src":"', '"op":"copy_file","src":"x'),
    "the folder that one of a new name is made in": ("clone_docs", named("win/res/scsi-many"), '"dir":"', '"dir":"x'),
    "the pattern of a new name": ("clone_docs", named("win/res/scsi-many"), '"pattern":"clone', '"pattern":"klone'),
    "leave to open a disk": ("wcow_docs", named("win/base"), '"op":"grant_vm_access","vm_id":"', '"op":"grant_vm_access","vm_id":"x'),
    "a crash": ("verify_wcow", named("win/one/clone-nil"), '"expect_verify":{"panic":true}', '"expect_verify":null'),
    "a share in the VM's state": ("clone_docs", named("win/res/vsmb-file"), '"vsmb_counter":1', '"vsmb_counter":2'),
    "a namespace in the VM's state": ("clone_docs", named("win/base"), '"namespaces":["89EB', '"namespaces":["88EB'),
    "an error's text": ("verify_lcow", lambda v: "not found" in v["expect"].get("error", ""), "' not found", "' was not found"),
    "a rule's text": ("verify_lcow", lambda v: v["expect_verify"], '"expect_verify":{"error":"', '"expect_verify":{"error":"x'),
    "an error's beginning": ("lcow_docs", lambda v: "error_prefix" in v["expect"], '"error_prefix":"', '"error_prefix":"x'),
    "a default": ("default_options", lambda v: v["input"]["kind"] == "lcow_defaults", '"ProcessorCount":2', '"ProcessorCount":3'),
    "a normalised number": ("normalize", lambda v: "memory_mb" in v["expect"], '"memory_mb":', '"memory_mb":1'),
    "the kind of call": ("normalize", anything, '"kind":"normalize_memory"', '"kind":"strange"'),
    "a byte of a request": ("gcs_messages", named("modify/linux-true"), '"payload":{"ContainerId"', '"payload":{"ContainerID"'),
    "the order of a request's members": ("gcs_messages", named("process/linux-true"), '"Height":24,"Width":80', '"Width":80,"Height":24'),
    "an escape in a request": ("gcs_messages", named("container/linux-true"), "\\\\u003cc\\\\u003e", "<c>"),
    "a frame's size": ("gcs_messages", named("container/linux-true"), '"size":273', '"size":274'),
    "a frame's id": ("gcs_messages", named("container/linux-true"), '"id":16', '"id":17'),
    "a frame's type": ("gcs_messages", named("container/linux-true"), '"type":269487105', '"type":269487104'),
    "the number of frames": ("gcs_messages", named("container/linux-true"), '"frames":[]', f'"frames":[{FRAME}]'),
    "a step's result": ("gcs_messages", named("process/linux-true"), '"pid":105', '"pid":106'),
    "a step's error": ("gcs_messages", named("process/linux-true"), "guest RPC failure: refused", "guest RPC failure: used"),
    "a step that fails": ("gcs_messages", named("exec-fails/linux"), '"error":"guest RPC failure: stuck"', '"error":null'),
    "a service of a stream": ("gcs_messages", named("cmd/windows-true"), '"40000001-facb', '"40000002-facb'),
    "a listened port": ("gcs_messages", named("process/linux-true"), '"listened_ports":[1073741825]', '"listened_ports":[1]'),
    "the sampling of spans": ("gcs_messages", named("process/linux-true"), '"span_sampler":"always"', '"span_sampler":"never"'),
    "the shape of a step": ("gcs_messages", named("modify/linux-true"), '"call":"Modify"', '"cell":"Modify"'),
    "a byte of a struct's JSON": (
        "schema_json",
        named("win/query/v2-2"),
        '"json":{"PropertyTypes":["Memory"]',
        '"json":{"PropertyTypes":["Storage"]',
    ),
    "a member of a struct": ("schema_json", named("win/save/to-file"), '"json":{"SaveType":"ToFile",', '"json":{'),
    "a byte of a call": ("vm_operations", named("win/lcow-vpci-nogc"), '"Functions":[{"DeviceInstancePath"', '"Functions":[{"Path"'),
    "the order of a call's members": (
        "vm_operations",
        named("win/lcow-plan9-19h1-nogc"),
        '"Settings":{"Name":"0","AccessName":"0"',
        '"Settings":{"AccessName":"0","Name":"0"',
    ),
    "the kind of a call": ("vm_operations", named("win/lcow-scsi-nogc"), '"call":"GrantVmAccess"', '"call":"GrantVmGroupAccess"'),
    "a call that is not made": (
        "vm_operations",
        named("win/lcow-vpmem-zero-gc"),
        '"calls":[]',
        '"calls":[{"call":"HcsModifyComputeSystem","json":{}}]',
    ),
    "an operation's result": ("vm_operations", named("win/lcow-scsi-nogc"), '"lun":2', '"lun":3'),
    "an operation's error": ("vm_operations", named("win/lcow-vpmem-zero-gc"), "no available location", "no location"),
    "an operation that fails": (
        "vm_operations",
        named("win/lcow-plan9-old-build-gc"),
        '"error":"single-file mappings are not supported on this build of Windows"',
        '"result":null',
    ),
    "a byte of an operation's frame": ("vm_operations", named("win/lcow-vpmem-gc"), '"DeviceNumber":1', '"DeviceNumber":2'),
    "the size of an operation's frame": ("vm_operations", named("win/lcow-vpci-gc"), '"size":346', '"size":347'),
    "the operation": ("vm_operations", named("win/lcow-vpmem-zero-gc"), '"op":"AddVPMEM"', '"op":"AddPMEM"'),
    "the shape of the expectation": ("normalize", anything, '"memory_mb"', '"memory_gb"'),
}


@pytest.mark.parametrize("what", CORRUPTIONS)
def test_the_runner_fails_when_another_is_expected(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, wanted, old, new = CORRUPTIONS[what]
    sound = first_vector(file, wanted)
    assert old in sound
    assert main(["--vectors", str(write(tmp_path, file, sound))]) == 0
    assert f"{file}: 1 passed, 0 failed" in capsys.readouterr().out

    assert main(["--vectors", str(write(tmp_path, file, sound.replace(old, new)))]) == 1
    said = capsys.readouterr().out
    assert f"{file}: 0 passed, 1 failed" in said
    assert json.loads(sound)["name"] in said


def test_a_failure_shows_both_sides_of_the_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vector = first_vector("lcow_docs", plain).replace('"Count":2', '"Count":3')
    main(["--vectors", str(write(tmp_path, "lcow_docs", vector))])
    said = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["-", '"Count":', "3"] for line in said)
    assert any(line.split() == ["+", '"Count":', "2"] for line in said)


def test_the_same_values_in_other_bytes_are_shown_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vector = first_vector("lcow_docs", escaped).replace("\\u0026", "&")
    main(["--vectors", str(write(tmp_path, "lcow_docs", vector))])
    theirs, ours = (line for line in capsys.readouterr().out.splitlines() if line.startswith(("    - {", "    + {")))
    assert theirs.startswith('    - {"Owner":')
    assert "&" in theirs
    assert "\\u0026" in ours


def test_a_vector_that_cannot_be_run_is_a_failure_and_the_others_are_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound = first_vector("normalize", anything)
    broken = sound.replace('"requested":', '"wanted":', 1)
    assert main(["--vectors", str(write(tmp_path, "normalize", broken, sound))]) == 1
    said = capsys.readouterr().out
    assert said.startswith("normalize: 1 passed, 1 failed")
    assert "raised KeyError: 'requested'" in said


def test_deviations_are_counted_by_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vector = first_vector("lcow_docs", plain)
    assert main(["--vectors", str(write(tmp_path, "lcow_docs", vector))]) == 0
    assert capsys.readouterr().out == "lcow_docs: 1 passed, 0 failed, 1 deviations (bug-24: 1)\n"


def test_an_operation_that_nobody_knows_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vector = first_vector("vm_operations", named("win/lcow-vpmem-zero-gc")).replace('"AddVPMEM"', '"Sing"')
    assert main(["--vectors", str(write(tmp_path, "later", vector))]) == 1
    assert "raised KeyError: 'Sing'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "sentence"), [("[", "cannot be read"), ("{}", "cannot be read"), ("[]", "holds no vector"), ("\udcff", "read")]
)
def test_a_file_that_is_no_list_of_vectors_is_refused(
    content: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.json").write_text(content, errors="surrogateescape")
    assert main(["--vectors", str(tmp_path)]) == 2
    assert sentence in capsys.readouterr().err


def test_a_vector_that_is_no_object_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--vectors", str(write(tmp_path, "bad", "7"))]) == 1
    assert "number 1: unusable vector: not an object" in capsys.readouterr().out


def test_a_missing_and_an_empty_folder_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--vectors", str(tmp_path / "absent")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert main(["--vectors", str(tmp_path)]) == 2
    assert "has no *.json file" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["tests/parity/run.py"], ["-m", "tests.parity.run"]])
def test_the_command_runs_both_ways(command: list[str], tmp_path: Path) -> None:
    folder = write(tmp_path, "normalize", first_vector("normalize", anything))
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, *command, "--vectors", str(folder)], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "normalize: 1 passed, 0 failed, 0 deviations\n"
