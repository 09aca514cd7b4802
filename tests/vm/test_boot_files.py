"""Boot files built from the real packages of this host's distribution, with each of the two kernels."""

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.unit.boot.needs import NEVER, needed

from utilityvm import UtilityVM, create_lcow, default_options_lcow
from utilityvm.boot.build import OwnKernel, build, find_agent
from utilityvm.boot.files import BootFiles, load
from utilityvm.boot.kconfig import options, value_of
from utilityvm.boot.modules import GROUPS
from utilityvm.boot.source import our_config
from utilityvm.kit.proc import run_tool
from utilityvm.store.layout import Layout

from .running import sh

FILES = ["vmlinux", "kernel", "initrd.img", "busybox.tar", "manifest.json"]

SCRIPT = """
mount -t proc proc /proc
while read group modules; do
  for module in $modules; do
    name=${module##*/}
    grep -qw ^${name%.ko} /proc/modules || insmod $module || echo cannot load $module
  done
  echo group $group
done < /etc/utilityvm/modules
crun --version
ls -l /dev/console
echo o > /proc/sysrq-trigger
"""


def build_at(out: Path, kind: str) -> BootFiles:
    layout = Layout.of_user()
    own = OwnKernel(layout.kernels, lambda _done, _about: None) if kind == "source" else None
    return build(out, find_agent(), layout.packages, print, own=own)


IN_CONTAINER = """
echo pid $$
read inside outside count </proc/self/uid_map; echo root is $outside
while read name value; do if [ "$name" = Seccomp: ]; then echo seccomp $value; fi; done </proc/self/status
"""

CONTAINER = {
    "ociVersion": "1.0.2",
    "root": {"path": "rootfs"},
    "process": {"cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"], "args": ["/bin/sh", "-c", IN_CONTAINER]},
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
    "linux": {
        "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network", "user", "cgroup")],
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
        "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
        "resources": {
            "pids": {"limit": 50},
            "memory": {"limit": 64 << 20},
            "cpu": {"shares": 512, "quota": 50000, "period": 100000},
            "devices": [{"allow": False, "access": "rwm"}],
        },
        "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}]},
    },
}

RUN_CONTAINER = f"""
set -e
mkdir -p /run/c/lower/bin /run/c/lower/dev /run/c/lower/proc /run/c/lower/sys /run/c/upper /run/c/work /run/c/rootfs
cp /bin/busybox /run/c/lower/bin/sh
chown -R 1000:1000 /run/c/lower /run/c/upper
mount -t overlay -o lowerdir=/run/c/lower,upperdir=/run/c/upper,workdir=/run/c/work none /run/c/rootfs
cat >/run/c/config.json <<'END'
{json.dumps(CONTAINER)}
END
grep -q cgroup2 /proc/mounts || mount -t cgroup2 none /sys/fs/cgroup
crun run --no-pivot --bundle /run/c c1
"""


@pytest.fixture(scope="module", params=["distribution", "source"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BootFiles:
    """The source kernel is compiled here when it is not kept: `make setup-source` does it with its progress shown."""
    return build_at(tmp_path_factory.mktemp("boot") / "boot", request.param)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guest(built: BootFiles) -> AsyncIterator[UtilityVM]:
    async with await create_lcow(default_options_lcow(boot_files_path=str(built.folder), memory_size_in_mb=256)) as machine:
        await machine.start()
        yield machine


def test_what_was_built_is_in_order(built: BootFiles) -> None:
    assert load(built.folder, digests=True) == built


@pytest.mark.once
def test_a_second_build_is_the_same_to_the_byte_and_replaces_the_first(built: BootFiles) -> None:
    before = {name: hashlib.sha256((built.folder / name).read_bytes()).hexdigest() for name in FILES}
    inode = built.folder.stat().st_ino
    again = build_at(built.folder, built.manifest.kernel.kind)
    assert {name: hashlib.sha256((again.folder / name).read_bytes()).hexdigest() for name in FILES} == before
    assert again.folder.stat().st_ino != inode
    assert sorted(path.name for path in built.folder.iterdir()) == sorted(FILES)
    assert list(built.folder.parent.iterdir()) == [built.folder]


def test_the_manifest_names_the_packages_and_the_agent(built: BootFiles) -> None:
    names = {package.name for package in built.manifest.packages}
    assert {"busybox-static", "crun", "libc6"} <= names
    kernel = built.manifest.kernel
    if kernel.kind == "source":
        assert kernel.compiled
        assert kernel.compiled.config_sha256 == hashlib.sha256(our_config().encode()).hexdigest()
        assert f"linux-source-{'.'.join(kernel.release.split('.')[:2])}" in names
    else:
        assert f"linux-image-{kernel.release}" in names
    agent = find_agent().read_bytes()
    assert built.manifest.agent.sha256 == hashlib.sha256(agent).hexdigest()
    assert agent in built.initrd.read_bytes()


def test_the_initial_ram_disk_is_small(built: BootFiles) -> None:
    assert built.initrd.stat().st_size < 24 << 20  # under software emulation each MiB costs every boot some 5 ms


def test_the_guest_loads_every_group_in_this_order_and_runs_crun(built: BootFiles) -> None:
    script = "; ".join(line.strip() for line in SCRIPT.strip().splitlines()).replace("do;", "do")
    machine = ["-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", "256", "-nodefaults", "-no-user-config", "-display", "none"]
    files = ["-kernel", str(built.vmlinux), "-initrd", str(built.initrd), "-serial", "stdio", "-no-reboot"]
    line = f'console=ttyS0 quiet panic=-1 rdinit=/bin/sh -- -c "{script}"'
    said = run_tool(["qemu-system-x86_64", *machine, *files, "-append", line], within=120).replace("\r", "")
    assert [line for line in said.splitlines() if line.startswith("group ")] == [f"group {group}:" for group in GROUPS]
    assert "cannot load" not in said
    assert "crun version" in said
    assert "5,   1" in said


@pytest.mark.asyncio(loop_scope="module")
async def test_the_guest_has_the_kernel_that_the_manifest_names(built: BootFiles, guest: UtilityVM) -> None:
    assert (await sh(guest, "uname -r")).out.decode().strip() == built.manifest.kernel.release


@pytest.mark.asyncio(loop_scope="module")
async def test_our_kernel_has_what_containers_need_and_not_what_must_not_be(built: BootFiles, guest: UtilityVM) -> None:
    if built.manifest.kernel.kind == "distribution":
        assert (await sh(guest, "test -e /proc/config.gz")).code == 1  # the distribution keeps its configuration elsewhere
        return
    have = options((await sh(guest, "zcat /proc/config.gz")).out.decode())
    assert {option: need.reason for option, need in needed().items() if value_of(option, have) != need.value} == {}
    never = {f"CONFIG_{option}": need.reason for need in NEVER for option in need.options.split()}
    assert {option: reason for option, reason in never.items() if value_of(option, have) != "n"} == {}
    assert [name for name, value in have.items() if value == "m"] == ["CONFIG_SCSI_VIRTIO"]


@pytest.mark.parametrize("built", ["source"], indirect=True)
@pytest.mark.asyncio(loop_scope="module")
async def test_what_containers_need_is_there_without_loading_anything(guest: UtilityVM) -> None:
    known = (await sh(guest, "cat /proc/filesystems")).out.decode().split()
    assert {"overlay", "erofs", "ext4", "xfs", "fuse", "virtiofs", "9p", "tmpfs", "cgroup2", "hugetlbfs"} <= set(known)
    mounted = await sh(guest, "mkdir -p /tmp/cg && mount -t cgroup2 none /tmp/cg && cat /tmp/cg/cgroup.controllers")
    assert {"cpuset", "cpu", "io", "memory", "hugetlb", "pids"} <= set(mounted.out.decode().split())
    for device in ("fuse", "net/tun", "vsock", "loop-control", "mapper/control"):
        assert (await sh(guest, f"test -c /dev/{device}")).code == 0, device
    assert (await sh(guest, "cat /proc/sys/kernel/seccomp/actions_avail")).out.split()[-1] == b"allow"
    assert (await sh(guest, "unshare --user --map-root-user --mount --pid --net --ipc --uts --fork id -u")).out == b"0\n"
    assert (await sh(guest, "cat /proc/sys/net/core/bpf_jit_enable")).out == b"1\n"
    assert (await sh(guest, "test ! -e /proc/modules || test ! -s /proc/modules")).code == 0


@pytest.mark.parametrize("built", ["source"], indirect=True)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_container_runs_on_our_kernel(guest: UtilityVM) -> None:
    done = await sh(guest, RUN_CONTAINER)
    assert (done.code, done.out) == (0, b"pid 1\nroot is 1000\nseccomp 2\n"), done.err
