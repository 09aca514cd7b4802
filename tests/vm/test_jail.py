"""The jail around QEMU: looked at from outside, and from inside by a program in QEMU's place that tries to get out.

Run as root and as an ordinary user; on a host that does not give every layer these tests fail and say which.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import sysconfig
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from utilityvm import create_lcow, default_options_lcow
from utilityvm.boot.files import BootFiles
from utilityvm.compute.ports import ExitHow
from utilityvm.compute.qemu.facts import HostFacts
from utilityvm.compute.qemu.jail import ALWAYS, FIRST_UID, MAX_FILES, Layer, enclosure
from utilityvm.compute.qemu.reads import offer
from utilityvm.compute.qemu.service import QemuService
from utilityvm.compute.qemu.system import QemuMachine
from utilityvm.kit.child import Child
from utilityvm.kit.errors import Unsupported
from utilityvm.kit.ids import VmId
from utilityvm.kit.proc import run_tool
from utilityvm.testing.kernels import Then, kernel

from .running import LIMIT, below, qemu_of, run
from .test_qemu_driver import document, spoken

ROOT = os.geteuid() == 0
NAMESPACES = ("user", "mnt", "pid", "ipc", "net", "uts", "cgroup")


@pytest_asyncio.fixture
async def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[QemuMachine]:
    """A running machine, whose owner has a secret in its environment."""
    monkeypatch.setenv("UVM_TEST_SECRET", "of the owner")
    (tmp_path / "kernel").write_bytes(kernel("hello\n", Then.HANG))
    service = QemuService(cache=tmp_path / "cache", environ={**os.environ, "UVM_ACCEL": "tcg"})
    running = await service.create(VmId("jailed"), document(tmp_path / "kernel"))
    try:
        await running.start()
        await spoken(running)
        yield running
    finally:
        await running.close()


def qemu(machine: QemuMachine) -> Path:
    """Return /proc's folder of the machine's QEMU."""
    assert machine._child is not None
    return Path(f"/proc/{below(machine._child.pid)[-1]}")


# -- from outside ----------------------------------------------------------------------------------------------------------


async def test_every_layer_holds_on_this_host(machine: QemuMachine) -> None:
    assert machine.jail.lacks == {}
    assert machine.jail.layers == tuple(layer for layer in Layer if ROOT or layer is not Layer.OWN_USER)


async def test_qemu_has_no_rights_and_cannot_get_any(machine: QemuMachine) -> None:
    status = dict(line.split(":\t", 1) for line in (qemu(machine) / "status").read_text().splitlines() if ":\t" in line)
    assert {name: int(status[name], 16) for name in status if name.startswith("Cap")} == dict.fromkeys(
        ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), 0
    )
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    (uid,), (gid,) = set(status["Uid"].split()), set(status["Gid"].split())
    if ROOT:
        assert FIRST_UID <= int(uid) <= FIRST_UID + 0x0FFF_FFFF
        assert (gid, status["Groups"].strip()) == (uid, "")
    else:
        assert (int(uid), int(gid)) == (os.geteuid(), os.getegid())


async def test_qemu_is_in_namespaces_of_its_own(machine: QemuMachine) -> None:
    ours, its = Path("/proc/self/ns"), qemu(machine) / "ns"
    assert [name for name in NAMESPACES if os.readlink(ours / name) == os.readlink(its / name)] == []  # noqa: PTH115 (not paths)


async def test_qemu_sees_the_files_it_reads_and_nothing_else(machine: QemuMachine) -> None:
    root = qemu(machine) / "root"
    allowed = {*machine.facts.jail.files, "/dev/null", "/proc", *(() if ROOT else machine._launch.files.values())}
    seen = set()
    folders = ["/"]
    for folder in folders:
        for entry in os.scandir(f"{root}{folder}"):
            path = f"{folder.rstrip('/')}/{entry.name}"
            if path not in allowed and entry.is_dir(follow_symlinks=False):
                folders.append(path)
            else:
                seen.add(path)
    assert seen == allowed
    assert sorted(os.listdir(root / "etc")) == ["ld.so.cache"]  # noqa: PTH208
    assert not [name for name in ("home", "root", "sys", "tmp", "run", "etc/passwd") if (root / name).exists()]
    assert len([entry for entry in os.listdir(root / "proc") if entry.isdigit()]) == 2  # noqa: PTH208 (bwrap and QEMU)


async def test_nothing_that_qemu_sees_can_be_written(machine: QemuMachine) -> None:
    mounts = [line.split() for line in (qemu(machine) / "mountinfo").read_text().splitlines()]
    writable = {fields[4] for fields in mounts if "ro" not in fields[5].split(",")}
    assert writable == {"/proc", "/dev/null"}
    assert ("/", "tmpfs") in {(fields[4], fields[fields.index("-") + 1]) for fields in mounts}


async def test_qemu_has_limits_and_nothing_of_its_owners_environment(machine: QemuMachine) -> None:
    limits = {line[:25].strip(): line[25:].split()[:2] for line in (qemu(machine) / "limits").read_text().splitlines()}
    assert limits["Max core file size"] == ["0", "0"]
    assert limits["Max open files"] == [str(MAX_FILES)] * 2
    environment = (qemu(machine) / "environ").read_bytes()
    assert [word.partition(b"=")[0] for word in environment.split(b"\0") if word] == [b"PWD"]


async def test_qemu_has_open_what_it_was_given_and_what_it_made(machine: QemuMachine) -> None:
    opened = {os.readlink(entry) for entry in (qemu(machine) / "fd").iterdir()}  # noqa: PTH115 (not paths)
    kinds = {name.partition(":")[0] for name in opened if not name.startswith("/")}
    assert kinds <= {"socket", "pipe", "anon_inode"}
    files = {name for name in opened if name.startswith("/")} - {"/dev/null", f"/memfd:uvm-{machine._id} (deleted)"}
    assert files <= {*machine._launch.files.values(), *(() if ROOT else machine.facts.jail.files)}


# -- from inside -----------------------------------------------------------------------------------------------------------

PRISONER = """
import ctypes, errno, json, os, signal, socket, sys
given = json.loads(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
results = {}
def attempt(name, act):
    try:
        results[name] = ["did", repr(act())]
    except OSError as error:
        results[name] = ["refused", errno.errorcode[error.errno]]
def call(function, *args):
    if (value := getattr(libc, function)(*args)) == -1:
        raise OSError(ctypes.get_errno(), function)
    return value
def connect(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(5)
        sock.connect(address)
attempt("descriptors", lambda: sorted(map(int, os.listdir("/proc/self/fd")))[:-1])
results["environment"] = sorted(os.environ)
results["processes"] = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
for path in given["read"]:
    attempt("read " + path, lambda: open(path, "rb").read(1))
for path in given["write"]:
    attempt("write " + path, lambda: open(path, "r+b").write(b"x"))
for path in given["make"]:
    attempt("make " + path, lambda: open(path, "x"))
for name, pid in given["pids"].items():
    attempt("signal " + name, lambda: os.kill(pid, 0))
    attempt("trace " + name, lambda: call("ptrace", 0x4206, pid, 0, 0))
    attempt("look into " + name, lambda: os.listdir(f"/proc/{pid}"))
attempt("abstract socket", lambda: connect(socket.AF_UNIX, "\\0" + given["abstract"]))
attempt("socket", lambda: connect(socket.AF_UNIX, given["socket"]))
attempt("port", lambda: connect(socket.AF_INET, ("127.0.0.1", given["port"])))
attempt("mount", lambda: call("mount", b"tmpfs", b"/dev", b"tmpfs", 0, None))
attempt("remount", lambda: call("mount", None, b"/", None, 0x1020, None))
attempt("unmount", lambda: call("umount2", b"/proc", 2))
attempt("user namespace", lambda: call("unshare", 0x10000000))
attempt("mount namespace", lambda: call("unshare", 0x00020000))
attempt("chroot", lambda: os.chroot("/usr"))
attempt("device", lambda: os.mknod("/dev/x", 0o60666, os.makedev(254, 0)))
attempt("hostname", lambda: socket.sethostname("x"))
attempt("user", lambda: os.setuid(65534))
attempt("groups", lambda: os.setgroups([0]))
attempt("capability", lambda: call("prctl", 47, 2, 21, 0, 0))
print(json.dumps(results))
"""


@pytest.fixture
def prison(machine: QemuMachine) -> HostFacts:
    """The facts of a host whose QEMU is Python: its jail shows Python as well."""
    python = os.path.realpath(sys.executable)
    libraries = [word for word in run_tool(["ldd", python], within=10).split() if word.startswith("/")]
    stdlib = [sysconfig.get_path("stdlib"), sysconfig.get_config_var("DESTSHARED")]
    files = dict.fromkeys([*machine.facts.jail.files, *libraries, *(file for file in stdlib if file), python])
    return msgspec.structs.replace(machine.facts, qemu=python, jail=msgspec.structs.replace(machine.facts.jail, files=tuple(files)))


def jailed(facts: HostFacts, script: str, given: object) -> Child:
    words = [facts.qemu, "-I", "-S", "-c", script, json.dumps(given)]
    return Child(words, enclosure=enclosure(facts.jail, FIRST_UID, root=ROOT))


async def attempts(facts: HostFacts, given: dict[str, Any]) -> dict[str, Any]:
    """Let a prisoner try; return what came of each attempt."""
    child = jailed(facts, PRISONER, given)
    async with asyncio.timeout(LIMIT):
        assert await child.wait() == 0, child.output.text(20)
    results: dict[str, Any] = json.loads(child.output.text(1))
    return results


@pytest.fixture
def targets(tmp_path: Path, machine: QemuMachine) -> Iterator[dict[str, Any]]:
    """What the owner has and the prisoner wants."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    secret.chmod(0o644)
    with ExitStack() as stack:
        abstract, path, port = (
            stack.enter_context(closing(socket.socket(family))) for family in (socket.AF_UNIX, socket.AF_UNIX, socket.AF_INET)
        )
        abstract.bind(f"\0uvm-test-{os.getpid()}")
        place = stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp"))
        path.bind(f"{place}/socket")
        port.bind(("127.0.0.1", 0))
        for sock in (abstract, path, port):
            sock.listen()
        private = ["/etc/shadow", "/etc/passwd", "/var/lib", "/home", str(Path.home()), str(secret), f"/proc/{os.getpid()}/environ"]
        yield {
            "read": [*private, "/dev/mem", "/dev/kvm", "/dev/vda", "/dev/tty", "/sys/kernel", "/proc/1/root/etc/shadow", "/proc/kcore"],
            "write": [str(secret), machine.facts.qemu, "/etc/ld.so.cache", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger"],
            "make": ["/x", "/dev/x", "/etc/x", "/usr/share/qemu/x", "/proc/x", "/tmp/x", f"{place}/x"],
            "pids": {"its owner": os.getpid(), "another VM": int(qemu(machine).name)},
            "abstract": f"uvm-test-{os.getpid()}",
            "socket": f"{place}/socket",
            "port": port.getsockname()[1],
        }


async def test_nothing_gets_out_even_without_the_seccomp_filter(prison: HostFacts, targets: dict[str, Any]) -> None:
    results = await attempts(prison, targets)
    assert set(results.pop("environment")) <= {"LC_CTYPE", "PWD"}
    assert results.pop("processes") == [1, 2]
    assert results.pop("descriptors") == ["did", "[0, 1, 2]"]
    done = {name: result for name, result in results.items() if result[0] != "refused"}
    assert done == {}
    assert len(results) == sum(len(targets[name]) for name in ("read", "write", "make")) + 3 * len(targets["pids"]) + 14


async def test_what_the_prisoner_tries_can_be_done_outside(prison: HostFacts, targets: dict[str, Any]) -> None:
    """Otherwise the test above would show nothing."""
    free = msgspec.structs.replace(prison, jail=msgspec.structs.replace(prison.jail, layers=ALWAYS))
    results = await attempts(free, targets | {"write": [], "make": []})
    for name in ("signal its owner", "signal another VM", "look into its owner", "abstract socket", "socket", "port", "user namespace"):
        refused_by_user = ROOT and name == "signal another VM"  # root without capabilities may not signal other users
        assert results[name][0] == ("refused" if refused_by_user else "did"), (name, results[name])
    assert results["read /etc/passwd"][0] == "did"


@pytest.mark.skipif(not ROOT, reason="an ordinary user's QEMU is that user's")
async def test_users_of_their_own_keep_vms_apart_even_without_namespaces(prison: HostFacts, targets: dict[str, Any]) -> None:
    apart = msgspec.structs.replace(prison, jail=msgspec.structs.replace(prison.jail, layers=(Layer.OWN_USER, *ALWAYS)))
    results = await attempts(apart, targets | {"make": []})
    for name in ("signal its owner", "signal another VM", "trace its owner", "trace another VM"):
        assert results[name] == ["refused", "EPERM"]
    assert results["read /etc/shadow"] == results[f"write {targets['write'][0]}"] == ["refused", "EACCES"]


async def test_the_boot_files_cannot_be_changed_through_what_qemu_gets_of_them(prison: HostFacts, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_text("of the next VM too")
    image.chmod(0o644)
    with ExitStack() as held:
        offered = offer([str(image)], prison.jail, held)
        script = "import sys, json; name = json.loads(sys.argv[1]); print(open(name).read()); open(name, 'r+')"
        words = [prison.qemu, "-I", "-S", "-c", script, json.dumps(offered.names[0])]
        child = Child(words, pass_fds=offered.fds, enclosure=enclosure(prison.jail, FIRST_UID, root=ROOT, files=offered.shown))
        async with asyncio.timeout(LIMIT):
            assert await child.wait() == 1
    said = child.output.text(50)
    assert "of the next VM too" in said
    assert "PermissionError" in said if ROOT else "Read-only file system" in said
    assert image.read_text() == "of the next VM too"


LINGERS = """
import os, signal, sys, time
for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
print("lingers", flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("by", ["its owner", "the death of its first process"])
async def test_nothing_stays_behind_whatever_it_forks(prison: HostFacts, by: str) -> None:
    child = jailed(prison, LINGERS, None)
    async with asyncio.timeout(LIMIT):
        while child.output.text(20).count("lingers") < 8:
            await asyncio.sleep(0.01)
    pids = below(child.pid)
    assert len(pids) == 10
    if by == "its owner":
        child.kill()
    else:
        os.kill(pids[1], signal.SIGKILL)
    async with asyncio.timeout(LIMIT):
        await child.wait()
        while any(Path(f"/proc/{pid}").exists() for pid in pids):  # noqa: ASYNC240
            await asyncio.sleep(0.01)


# -- the doors -------------------------------------------------------------------------------------------------------------


async def uvm(*words: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "utilityvm",
        *words,
        env=os.environ | (env or {}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(LIMIT):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
def without_bwrap() -> Iterator[dict[str, str]]:
    """The environment of a host without bubblewrap."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as tools:
        Path(tools).chmod(0o755)
        for tool in ("sh", "setpriv", "unshare", "ldd", "qemu-system-x86_64"):
            Path(tools, tool).symlink_to(shutil.which(tool) or "")
        yield {"PATH": tools, "XDG_CACHE_HOME": f"{tools}/cache"}


async def test_a_vm_tells_its_jail_and_runs_in_all_of_it(boot_files: BootFiles) -> None:
    options = default_options_lcow(boot_files_path=str(boot_files.folder), memory_size_in_mb=256, processor_count=1)
    async with await create_lcow(options, require_jail=True) as vm:
        await vm.start()
        assert vm.jail.lacks == {}
        assert (await run(vm, "true")).code == 0
        assert os.readlink(f"/proc/{qemu_of(vm.id)}/ns/mnt") != os.readlink("/proc/self/ns/mnt")  # noqa: PTH115 (not paths)


async def test_a_jail_that_is_required_and_lacks_a_layer_is_refused_by_its_name(
    boot_files: BootFiles, without_bwrap: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", without_bwrap["PATH"])
    monkeypatch.setenv("XDG_CACHE_HOME", without_bwrap["XDG_CACHE_HOME"])
    with pytest.raises(Unsupported, match=r"a whole jail is required.*mount namespace \(setpriv: failed to execute bwrap") as caught:
        await create_lcow(default_options_lcow(boot_files_path=str(boot_files.folder)), require_jail=True)
    assert "bubblewrap" in caught.value.hint
    code, _, err = await uvm("boot", "--require-jail", "--", "true")
    assert code == 125
    assert "mount namespace" in err


@pytest.mark.usefixtures("boot_files")
async def test_a_jail_that_lacks_a_layer_is_used_with_a_warning_in_one_line(without_bwrap: dict[str, str]) -> None:
    code, _, err = await uvm("boot", "--memory", "256", "--", "true", env=without_bwrap | {"UVM_ACCEL": "tcg"})
    assert code == 0, err
    emulated, jail = err.splitlines()
    assert "not a security boundary" in emulated
    assert jail.startswith("uvm: warning: the jail around QEMU is without its user namespace, mount namespace, ")
    code, out, _ = await uvm("doctor", env=without_bwrap)
    assert code == 0
    assert "weak  bwrap        not found" in out
    assert "weak  jail         without mount namespace: setpriv: failed to execute bwrap" in out


@pytest.mark.usefixtures("boot_files")
async def test_emulation_is_told_in_one_line() -> None:
    code, _, err = await uvm("boot", "--memory", "256", "--", "true", env={"UVM_ACCEL": "tcg"})
    assert (code, len(err.splitlines())) == (0, 1), err
    assert "not a security boundary" in err


async def test_a_machine_ends_as_it_should_with_a_kernel_that_only_its_owner_may_read(tmp_path: Path) -> None:
    image = tmp_path / "kernel"
    image.write_bytes(kernel("hello\n", Then.POWER_OFF))
    image.chmod(0o600)
    service = QemuService(cache=tmp_path / "cache", environ={**os.environ, "UVM_ACCEL": "tcg"})
    machine = await service.create(VmId("private"), document(image))
    try:
        await machine.start()
        async with asyncio.timeout(LIMIT):
            assert (await machine.wait()).how is ExitHow.POWERED_OFF
    finally:
        await machine.close()
