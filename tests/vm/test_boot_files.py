"""Boot files built from the real packages of this host's distribution."""

import hashlib

import pytest

from utilityvm.boot.build import build, find_agent
from utilityvm.boot.files import BootFiles, load
from utilityvm.boot.modules import GROUPS
from utilityvm.kit.proc import run_tool
from utilityvm.store.layout import Layout

pytestmark = pytest.mark.vm

FILES = ["vmlinux", "kernel", "initrd.img", "manifest.json"]

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


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BootFiles:
    return build(tmp_path_factory.mktemp("boot") / "boot", find_agent(), Layout.of_user().packages, print)


def test_what_was_built_is_in_order(built: BootFiles) -> None:
    assert load(built.folder, digests=True) == built


def test_a_second_build_is_the_same_to_the_byte_and_replaces_the_first(built: BootFiles) -> None:
    before = {name: hashlib.sha256((built.folder / name).read_bytes()).hexdigest() for name in FILES}
    inode = built.folder.stat().st_ino
    again = build(built.folder, find_agent(), Layout.of_user().packages, print)
    assert {name: hashlib.sha256((again.folder / name).read_bytes()).hexdigest() for name in FILES} == before
    assert again.folder.stat().st_ino != inode
    assert sorted(path.name for path in built.folder.iterdir()) == sorted(FILES)
    assert list(built.folder.parent.iterdir()) == [built.folder]


def test_the_manifest_names_the_packages_and_the_agent(built: BootFiles) -> None:
    names = {package.name for package in built.manifest.packages}
    assert {"busybox-static", "crun", "libc6", f"linux-image-{built.manifest.kernel.release}"} <= names
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
