"""The package in an interpreter without Unix: it is loaded, and each verb does its work or says that it cannot."""

import json
import subprocess  # noqa: TID251 (an interpreter of its own)
import sys

import pytest


def run(*words: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-m", "tests.hcs.as_windows", *words], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_document_is_printed() -> None:
    code, text = run("document", "wcow", "--layer-folders", "a", "--layer-folders", "b")
    assert code == 0, text
    assert json.loads(text)["VirtualMachine"]["Chipset"]["Uefi"]["BootThis"]["DevicePath"].endswith("bootmgfw.efi")


def test_doctor_says_what_is_missing_and_what_to_do() -> None:
    code, text = run("doctor")
    assert code == 6, text
    told = [line.split(maxsplit=2) for line in text.splitlines()]
    assert [words[:2] for words in told if words[0] != "hint:"][1:] == [
        ["ok", "windows"],
        ["ok", "kernel"],
        ["FAIL", "hyper-v"],
        ["FAIL", "hcs"],
        ["FAIL", "rights"],
        ["FAIL", "hvsockets"],
    ]
    assert "vmcompute.dll: cannot be loaded" in text
    assert "hint: turn on the Windows features Containers and Hyper-V" in text


def test_a_vm_fails_of_the_missing_service_alone() -> None:
    code, text = run("create_wcow")
    assert code == 1
    assert text.splitlines()[-1].startswith("utilityvm.kit.errors.Unsupported: vmcompute.dll: cannot be loaded")


@pytest.mark.parametrize("words", [("boot", "--", "true"), ("boot-files", "show"), ("completion", "bash")])
def test_a_verb_that_needs_unix_says_so(words: tuple[str, ...]) -> None:
    code, text = run(*words)
    assert code != 0
    assert text.startswith(f"uvm: uvm {words[0]}: not on Windows\n")
