"""Which layers of the jail hold: on this host, on one that refuses some, and on one without the tools."""

import asyncio
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from utilityvm.compute.qemu import jail_probe as module
from utilityvm.compute.qemu.jail import ALWAYS, STEPS, Jail, Layer, hint, uid_of
from utilityvm.compute.qemu.jail_probe import files_of, probe_jail
from utilityvm.compute.qemu.reads import offer
from utilityvm.kit.errors import HostError
from utilityvm.kit.ids import RuntimeId

QEMU = Path(shutil.which("qemu-system-x86_64") or "qemu-system-x86_64")
ROOT = os.geteuid() == 0
WANTED = [layer for step in STEPS for layer in step if ROOT or layer is not Layer.OWN_USER]
PROBE = """
import asyncio, sys
from pathlib import Path
from utilityvm.compute.qemu.jail import hint
from utilityvm.compute.qemu.jail_probe import probe_jail
jail = asyncio.run(probe_jail(Path(sys.argv[1]), Path(sys.argv[2])))
print(",".join(jail.layers), dict(jail.lacks), hint(jail), sep="\\n")
"""


async def probed_where(tmp_path: Path, first: str) -> tuple[list[str], str, str]:
    """Probe as an ordinary user of a user namespace in which the shell's command `first` was run by its root."""
    probe = shlex.join([sys.executable, "-c", PROBE, str(QEMU), str(tmp_path)])
    words = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        f"{first} && exec unshare --user --map-user=1000 --map-group=1000 {probe}",
    ]
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    layers, lacks, hint = out.decode().splitlines()
    return layers.split(","), lacks, hint


async def test_this_host_gives_all_layers_and_is_asked_once(tmp_path: Path) -> None:
    jail = await probe_jail(QEMU, tmp_path)
    assert jail.lacks == {}
    assert list(jail.layers) == [*WANTED, *ALWAYS]
    kept = (tmp_path / "jail.json").read_text()
    (tmp_path / "jail.json").write_text(kept.replace("no capabilities", "seccomp filter"))
    assert (await probe_jail(QEMU, tmp_path)).layers.count(Layer.SECCOMP) == 2
    assert await probe_jail(QEMU, tmp_path, anew=True) == jail


async def test_where_user_namespaces_are_refused_the_rest_holds_with_the_reason_and_what_to_do(tmp_path: Path) -> None:
    layers, lacks, hint = await probed_where(tmp_path, "echo 1 >/proc/sys/user/max_user_namespaces")
    assert layers == list(ALWAYS)
    assert "'user namespace'>: 'unshare: unshare failed: No space left on device'" in lacks
    assert "'network namespace'>: 'needs the user namespace'" in lacks
    assert "user.max_user_namespaces" in hint


async def test_a_layer_that_is_refused_alone_is_left_out_alone(tmp_path: Path) -> None:
    layers, lacks, _ = await probed_where(tmp_path, "echo 0 >/proc/sys/user/max_net_namespaces")
    assert layers == [layer for step in STEPS[1:] for layer in step if layer is not Layer.NETWORK] + list(ALWAYS)
    assert lacks == "{<Layer.NETWORK: 'network namespace'>: 'unshare: unshare failed: No space left on device'}"


@pytest.fixture
def without_bwrap(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tools of a host without bubblewrap, where a QEMU that is another user gets to them too."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as tools:
        Path(tools).chmod(0o755)
        for tool in ("sh", "setpriv", "unshare", "ldd"):
            Path(tools, tool).symlink_to(shutil.which(tool) or "")
        monkeypatch.setenv("PATH", tools)
        yield


@pytest.mark.usefixtures("without_bwrap")
async def test_a_host_without_bwrap_is_told_what_to_install(tmp_path: Path) -> None:
    jail = await probe_jail(QEMU, tmp_path / "cache")
    assert jail.lacks[Layer.MOUNT] == "setpriv: failed to execute bwrap: No such file or directory"
    assert (Layer.OWN_USER in jail.layers) == ROOT
    assert "bubblewrap" in hint(jail)


async def test_a_trial_that_does_not_end_is_an_error_and_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TRIAL", 1.0)
    program = tmp_path / "qemu"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    with pytest.raises(HostError, match="qemu -L help: no end in 1 s"):
        await probe_jail(program, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


async def test_a_qemu_that_its_own_user_cannot_get_to_stays_its_owners(tmp_path: Path) -> None:
    if not ROOT:
        pytest.skip("an ordinary user's QEMU has no user of its own")
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    shutil.copy(QEMU, hidden / "qemu")
    jail = await probe_jail(hidden / "qemu", tmp_path)
    assert list(jail.lacks) == [Layer.OWN_USER]
    assert "ermission denied" in jail.lacks[Layer.OWN_USER]


async def test_what_qemu_reads_is_listed_with_its_modules_and_firmware_and_nothing_private() -> None:
    files = await files_of(QEMU)
    assert str(QEMU) in files
    assert any("/libc.so.6" in file for file in files)
    assert any(file.endswith("/share/qemu") for file in files)
    folders = [file for file in files if Path(file).is_dir()]  # noqa: ASYNC240
    assert all("qemu" in folder or "seabios" in folder for folder in folders)
    assert [file for file in files if file.startswith(("/etc", "/home", "/root", "/var"))] == ["/etc/ld.so.cache"]


def test_machines_have_different_users() -> None:
    assert uid_of(RuntimeId("00000000-0000-0000-0000-000000000000")) == 0x7000_0000
    assert uid_of(RuntimeId("ffffffff-ffff-ffff-ffff-ffffffffffff")) == 0x7FFF_FFFF
    assert uid_of(RuntimeId("6b8f1f4d-3c2a-4e57-9a61-0f1e2d3c4b5a")) == 0x7D3C_4B5A


def test_files_are_shown_by_name_or_given_open_and_the_private_as_copies(tmp_path: Path) -> None:
    public, private = tmp_path / "public", tmp_path / "private"
    public.write_text("public")
    private.write_text("private")
    public.chmod(0o644)
    private.chmod(0o600)
    paths = [str(public), str(private)]
    with ExitStack() as held:
        shown = offer(paths, Jail(), held)
        given = offer(paths, Jail(layers=(Layer.OWN_USER,)), held)
        assert (shown.names, shown.shown, shown.fds) == (tuple(paths), tuple(paths), ())
        assert given.shown == ()
        assert [Path(name).read_text() for name in given.names] == ["public", "private"]
        assert [os.fstat(fd).st_ino == path.stat().st_ino for fd, path in zip(given.fds, (public, private), strict=True)] == [True, False]
    with pytest.raises(FileNotFoundError):
        offer([str(tmp_path / "none")], Jail(layers=(Layer.OWN_USER,)), ExitStack())
