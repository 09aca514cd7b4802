"""Control groups on a tree of ordinary files that behaves as the kernel's: version 2, and version 1 with its controllers apart."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from utilityvm.compute.qemu.cgroup import Cgroups, CpuGroupInfo
from utilityvm.compute.qemu.share import Share
from utilityvm.kit.errors import Exists, HostError, InvalidOptions, NotFound, StateError, Unsupported
from utilityvm.kit.ids import VmId

V1 = "30 20 0:30 / {}/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n31 20 0:31 / {}/cpuset rw,nosuid shared:3 - cgroup cgroup rw,cpuset\n"
V2 = "30 20 0:30 / {} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID = V1 + "41 31 0:38 / {}/unified rw,relatime - cgroup2 cgroup2 rw\n"


@pytest.fixture(autouse=True)
def _as_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group goes with its files, but not with a process or a group in it."""
    rmdir = Path.rmdir

    def remove(folder: Path) -> None:
        procs = folder / "cgroup.procs"
        if procs.exists() and procs.read_text().strip():
            raise OSError(16, "Device or resource busy", str(folder))
        if not any(inner.is_dir() for inner in folder.iterdir()):
            for file in folder.iterdir():
                file.unlink()
        rmdir(folder)

    monkeypatch.setattr(Path, "rmdir", remove)


Host = Callable[..., Cgroups]


@pytest.fixture
def v2(tmp_path: Path) -> Cgroups:
    return host(tmp_path, V2, "0::/user.slice/a.scope\n")


@pytest.fixture
def v1(tmp_path: Path) -> Cgroups:
    return host(tmp_path, V1, "5:cpuset:/\n4:cpu,cpuacct:/user.slice\n")


def host(top: Path, mounts: str, own: str) -> Cgroups:
    (top / "proc").mkdir()
    (top / "proc/mountinfo").write_text("22 1 8:1 / / rw - ext4 /dev/vda rw\n" + mounts.replace("{}", f"{top}/cg"))
    (top / "proc/cgroup").write_text(own)
    for folder in ("cg", "cg/user.slice", "cg/user.slice/a.scope", "cg/cpu,cpuacct", "cg/cpuset", "cg/unified"):
        (top / folder).mkdir()
        (top / folder / "cgroup.procs").write_text("")
        (top / folder / "cgroup.controllers").write_text("cpuset cpu io memory pids" if "unified" not in folder else "hugetlb")
        (top / folder / "cgroup.subtree_control").write_text("memory pids")
    (top / "cg/cpuset/cpuset.cpus").write_text("0-3\n")
    (top / "cg/cpuset/cpuset.mems").write_text("0\n")
    return Cgroups(top / "proc")


def text(path: Path) -> str:
    return path.read_text().strip()


def test_version_2_gets_quota_and_weight(v2: Cgroups, tmp_path: Path) -> None:
    v2.check(share := Share(count=2, limit=25_000, weight=300))
    group = v2.make(VmId("a"), share)
    folder = tmp_path / "cg/utilityvm/a"
    assert group.entries == (f"{folder}/cgroup.procs",)
    assert text(folder / "cpu.max") == "50000 100000"
    assert text(folder / "cpu.weight") == "300"
    assert text(tmp_path / "cg/cgroup.subtree_control") == text(tmp_path / "cg/utilityvm/cgroup.subtree_control") == "+cpuset"
    group.give(Share(count=2))
    assert (text(folder / "cpu.max"), text(folder / "cpu.weight")) == ("max", "100")
    group.close()
    assert not folder.exists()
    group.close()


def test_version_1_gets_quota_and_shares(v1: Cgroups, tmp_path: Path) -> None:
    v1.check(share := Share(count=1, limit=500, weight=200))
    group = v1.make(VmId("a"), share)
    folder = tmp_path / "cg/cpu,cpuacct/utilityvm/a"
    assert group.entries == (f"{folder}/cgroup.procs",)
    files = ("cpu.cfs_period_us", "cpu.cfs_quota_us", "cpu.shares")
    assert [text(folder / file) for file in files] == ["1000000", "5000", "2048"]
    group.give(Share(count=1))
    assert (text(folder / "cpu.cfs_quota_us"), text(folder / "cpu.shares")) == ("-1", "1024")
    group.close()
    assert not folder.exists()


def test_a_hybrid_host_s_version_1_is_used(tmp_path: Path) -> None:
    hybrid = host(tmp_path, HYBRID, "5:cpuset:/\n4:cpu,cpuacct:/\n0::/\n")
    group = hybrid.make(VmId("a"), Share(count=1, weight=5))
    assert group.entries == (f"{tmp_path}/cg/cpu,cpuacct/utilityvm/a/cgroup.procs",)
    group.close()


def test_processes_are_taken_in_and_let_go_to_where_they_were(v1: Cgroups, tmp_path: Path) -> None:
    v1.create_group("g", affinity="1")
    inside = v1.make(VmId("a"), Share(count=1, group="g"))
    inside.adopt([17])
    places = [tmp_path / "cg/cpu,cpuacct/utilityvm/@g/a", tmp_path / "cg/cpuset/utilityvm/@g/a"]
    assert [text(place / "cgroup.procs") for place in places] == ["17", "17"]
    assert inside.pids() == {17}
    assert text(places[1] / "cpuset.cpus") == "1"
    outside = v1.make(VmId("a"), Share(count=1, weight=7))
    outside.adopt([17])
    assert text(tmp_path / "cg/cpu,cpuacct/utilityvm/a/cgroup.procs") == text(tmp_path / "cg/cpuset/cgroup.procs") == "17"
    for folder in (*places, tmp_path / "cg/cpu,cpuacct/utilityvm/a"):
        (folder / "cgroup.procs").write_text("")  # as if it had ended
    inside.close()
    outside.close()


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_cpu_group_has_cap_and_affinity(version: str, request: pytest.FixtureRequest) -> None:
    cgroups: Cgroups = request.getfixturevalue(version)
    cgroups.create_group("Gold", cap=1.5, affinity="0,2-3")
    cgroups.create_group("free")
    vm = cgroups.make(VmId("a"), Share(count=4, limit=50_000, group="gold"))
    assert cgroups.groups() == [CpuGroupInfo("free", None, cgroups.groups()[0].affinity, ()), CpuGroupInfo("gold", 1.5, "0,2-3", ("a",))]
    with pytest.raises(StateError, match="CPU group 'gold': cannot remove it while VMs are in it"):
        cgroups.remove_group("gold")
    vm.close()
    cgroups.remove_group("GOLD")
    assert [group.name for group in cgroups.groups()] == ["free"]
    with pytest.raises(NotFound, match="'gold'"):
        cgroups.remove_group("gold")


def test_version_1_leaves_a_limit_above_its_group_s_to_the_group(v1: Cgroups, tmp_path: Path) -> None:
    v1.create_group("g", cap=0.5)
    vm = v1.make(VmId("a"), Share(count=1, limit=90_000, group="g"))
    folder = tmp_path / "cg/cpu,cpuacct/utilityvm/@g/a"
    assert text(folder / "cpu.cfs_quota_us") == "-1"
    vm.give(Share(count=1, limit=20_000, group="g"))
    assert text(folder / "cpu.cfs_quota_us") == "20000"
    vm.close()


@pytest.mark.parametrize(
    ("name", "cap", "affinity", "said"),
    [
        ("@a", None, "", "CPU group '@a'"),
        ("a/b", None, "", "CPU group 'a/b'"),
        ("", None, "", "CPU group ''"),
        ("a", 0.0, "", "cap 0: at least"),
        ("a", float("inf"), "", "cap inf: at least"),
        ("a", float("nan"), "", "cap nan: at least"),
        ("a", None, "one", "affinity 'one'"),
    ],
)
def test_a_cpu_group_that_makes_no_sense_is_refused(v2: Cgroups, name: str, cap: float | None, affinity: str, said: str) -> None:
    with pytest.raises(InvalidOptions, match=said):
        v2.create_group(name, cap=cap, affinity=affinity)
    assert v2.groups() == []


def test_a_second_cpu_group_of_a_name_is_refused_and_the_first_stays(v2: Cgroups) -> None:
    v2.create_group("g", cap=2)
    with pytest.raises(Exists):
        v2.create_group("g", cap=3)
    assert v2.groups()[0].cap == 2


def test_a_cpu_group_that_does_not_exist_is_not_found(v2: Cgroups) -> None:
    with pytest.raises(NotFound, match="CPU group 'nope'"):
        v2.check(Share(count=1, group="nope"))


def test_what_nobody_holds_is_swept_and_what_somebody_holds_stays(v2: Cgroups, tmp_path: Path) -> None:
    v2.create_group("g")
    held = v2.make(VmId("held"), Share(count=1, weight=1))
    for left in ("left", "@g/left"):
        (tmp_path / "cg/utilityvm" / left).mkdir()
    busy = tmp_path / "cg/utilityvm/busy"
    busy.mkdir()
    (busy / "cgroup.procs").write_text("1\n")
    v2.sweep()
    ours = tmp_path / "cg/utilityvm"
    assert sorted(entry.name for entry in ours.iterdir() if entry.is_dir()) == ["@g", "busy", "held"]
    assert not (ours / "@g/left").exists()
    held.close()


def test_a_vm_of_an_id_that_is_held_is_refused_and_one_that_was_left_is_taken_over(v2: Cgroups) -> None:
    first = v2.make(VmId("a"), Share(count=1, weight=1))
    with pytest.raises(Exists, match="vm a"):
        v2.make(VmId("a"), Share(count=1, weight=1))
    first.close()
    v2.make(VmId("b"), Share(count=1, weight=1))  # whose owner forgets it: the descriptor is all that holds it
    for fd in os.listdir("/proc/self/fd"):  # noqa: PTH208
        if os.path.realpath(f"/proc/self/fd/{fd}").endswith("/utilityvm/b"):
            os.close(int(fd))
    v2.make(VmId("b"), Share(count=1, weight=2)).close()


def test_a_host_without_the_controller_is_refused_by_the_names_of_the_fields(tmp_path: Path) -> None:
    bare = host(tmp_path, "", "0::/\n")
    with pytest.raises(Unsupported, match=r"Limit, Weight, CpuGroup: needs a control group"):
        bare.check(Share(count=1, limit=1, weight=1, group="g"))
    bare.check(Share(count=1))
    with pytest.raises(Unsupported):
        bare.create_group("g")
    assert bare.groups() == []


def test_a_delegated_subtree_is_used_where_the_top_is_not_ours(v2: Cgroups, tmp_path: Path) -> None:
    (tmp_path / "cg/cgroup.controllers").write_text("memory pids")  # as if cpu were kept from it
    group = v2.make(VmId("a"), Share(count=1, weight=1))
    assert group.entries == (f"{tmp_path}/cg/user.slice/utilityvm/a/cgroup.procs",)
    group.close()


def test_a_refusal_of_the_kernel_leaves_nothing(v2: Cgroups, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_text

    def refuse(file: Path, content: str) -> int:
        if file.name == "cpu.weight":
            raise OSError(22, "Invalid argument", str(file))
        return write(file, content)

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(HostError, match=r"utilityvm/a: .*cpu\.weight: Invalid argument"):
        v2.make(VmId("a"), Share(count=1, weight=1))
    assert not (tmp_path / "cg/utilityvm/a").exists()
