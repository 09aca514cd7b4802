"""The names without await with real VMs: in a script, in the interactive shell, interrupted, and left open."""

import os
import signal
import subprocess  # noqa: TID251 (scripts as users run them)
import sys
import time

import pytest

from utilityvm import sync
from utilityvm.boot.files import BootFiles
from utilityvm.sync.loop import loop_thread

from .running import LIMIT, of_vm


@pytest.fixture(scope="module", autouse=True)
def _loop() -> None:
    """Begin the process's loop thread, which stays, before descriptors are counted."""
    loop_thread()


OPTIONS = "sync.default_options_lcow(memory_size_in_mb=256, processor_count=1, boot_files_path={folder!r}, id={name!r})"


def program(boot_files: BootFiles, name: str, text: str) -> str:
    return f"from utilityvm import sync\noptions = {OPTIONS.format(folder=str(boot_files.folder), name=name)}\n{text}"


def python(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], input=stdin, capture_output=True, text=True, timeout=LIMIT, check=False)


def test_a_vm_under_pytest(boot_files: BootFiles) -> None:
    options = sync.default_options_lcow(boot_files_path=str(boot_files.folder), memory_size_in_mb=256, processor_count=1)
    with sync.create_lcow(options) as vm:
        vm.start()
        process = vm.create_process(["cat"], stdin=True)
        process.stdin.write(b"there and back")
        process.stdin.write_eof()
        assert (process.stdout.read(), process.wait()) == (b"there and back", 0)
        process.close()
        vm.pause()
        vm.resume()
    assert of_vm(vm.id) == []


def test_a_vm_that_nobody_closed_ends_with_the_script(boot_files: BootFiles) -> None:
    ended = python("-c", program(boot_files, f"left-open-{os.getpid()}", "vm = sync.create_lcow(options)\nvm.start()\nprint(vm.state)"))
    assert (ended.returncode, ended.stdout) == (0, "running\n")
    assert "Traceback" not in ended.stderr
    assert "Warning" not in ended.stderr
    assert of_vm(f"left-open-{os.getpid()}") == []


def test_the_interactive_shell(boot_files: BootFiles) -> None:
    lines = "vm = sync.create_lcow(options)\nvm.start()\nvm.create_process(['echo', 'hello']).stdout.read()\nvm.close()\nvm.state\n"
    ended = python("-i", "-q", stdin=program(boot_files, f"shell-{os.getpid()}", lines))
    assert ended.returncode == 0
    assert "b'hello\\n'" in ended.stdout
    assert "closed" in ended.stdout
    assert of_vm(f"shell-{os.getpid()}") == []


@pytest.mark.parametrize("text", ["vm.wait()", "vm.create_process(['sleep', '1000']).wait()"])
def test_ctrl_c_in_a_script_leaves_nothing(boot_files: BootFiles, text: str) -> None:
    body = f"with sync.create_lcow(options) as vm:\n    vm.start()\n    print('ready', flush=True)\n    {text}"
    child = subprocess.Popen(
        [sys.executable, "-c", program(boot_files, f"ctrl-c-{os.getpid()}", body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    began = time.monotonic()
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=LIMIT)
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert (child.returncode, of_vm(f"ctrl-c-{os.getpid()}")) == (-signal.SIGINT, [])
    assert time.monotonic() - began < LIMIT
