"""What docker would make of an image and the flags of `docker run`, as tables."""

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from utilityvm.containers import capabilities
from utilityvm.containers.spec import check_wish, process_of, spec_of, vm_size
from utilityvm.containers.wish import Tmpfs, Ulimit, Volume, Wish
from utilityvm.images.image import ImageConfig
from utilityvm.kit.errors import InvalidOptions
from utilityvm.plan.topology import GUEST_MEMORY
from utilityvm.wire.oci import Mount, PidsLimit, Resources, Spec, User

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOST = "HOSTNAME=h"
PLAIN = ImageConfig(architecture="amd64", os="linux", cmd=("sh",))
BOTH = ImageConfig(architecture="amd64", os="linux", entrypoint=("run", "-x"), cmd=("a", "b"))


def spec(config: ImageConfig = PLAIN, **wish: Any) -> Spec:  # noqa: ANN401 (fields of a wish)
    return spec_of(config, Wish(**wish), "0123456789abcdef")


def mounts(config: ImageConfig = PLAIN, **wish: Any) -> dict[str, Mount]:  # noqa: ANN401
    return {mount.destination: mount for mount in spec(config, **wish).mounts}


@pytest.mark.parametrize(
    ("config", "wish", "args"),
    [
        (PLAIN, Wish(), ["sh"]),
        (PLAIN, Wish(args=("ls", "-l")), ["ls", "-l"]),
        (BOTH, Wish(), ["run", "-x", "a", "b"]),
        (BOTH, Wish(args=("c",)), ["run", "-x", "c"]),
        (BOTH, Wish(entrypoint=("sh",)), ["sh"]),
        (BOTH, Wish(entrypoint=("sh",), args=("-c", "x")), ["sh", "-c", "x"]),
        (BOTH, Wish(entrypoint=(), args=("c", "d")), ["c", "d"]),
    ],
)
def test_the_entrypoint_is_kept_and_the_command_replaced_unless_the_entrypoint_is_given(
    config: ImageConfig, wish: Wish, args: list[str]
) -> None:
    assert process_of(config, wish, "h").args == args


@pytest.mark.parametrize(("config", "wish"), [(replace(PLAIN, cmd=()), Wish()), (BOTH, Wish(entrypoint=()))])
def test_nothing_to_run_is_refused(config: ImageConfig, wish: Wish) -> None:
    with pytest.raises(InvalidOptions, match="^no command: the image has none, and none was given$"):
        process_of(config, wish, "h")


@pytest.mark.parametrize(
    ("image", "wish", "env"),
    [
        ((), Wish(), [PATH, HOST]),
        (("PATH=/bin", "A=1"), Wish(), ["PATH=/bin", HOST, "A=1"]),
        (("A=1", "B=2"), Wish(env=(("A", "x"), ("C", ""))), [PATH, HOST, "A=x", "B=2", "C="]),
        (("A=1", "B=2"), Wish(env=(("A", None), ("D", None))), [PATH, HOST, "B=2"]),
        (("A=1",), Wish(env=(("A", None), ("A", "2"))), [PATH, HOST, "A=2"]),
        (("A=x=y",), Wish(console_size=(24, 80)), [PATH, HOST, "TERM=xterm", "A=x=y"]),
        (("TERM=dumb",), Wish(console_size=(24, 80)), [PATH, HOST, "TERM=dumb"]),
        (("HOSTNAME=x",), Wish(), [PATH, "HOSTNAME=x"]),
    ],
)
def test_variables_are_the_images_and_then_the_users(image: tuple[str, ...], wish: Wish, env: list[str]) -> None:
    assert process_of(replace(PLAIN, env=image), wish, "h").env == env


def test_folder_and_user_are_the_images_unless_they_are_given() -> None:
    config = replace(PLAIN, working_dir="/app", user="app:staff")
    assert process_of(config, Wish(), "h").cwd == "/app"
    assert process_of(config, Wish(), "h").user == User(uid=0, gid=0, username="app:staff")
    process = process_of(config, Wish(cwd="/tmp", user="7"), "h")
    assert (process.cwd, process.user.username) == ("/tmp", "7")
    assert process_of(PLAIN, Wish(), "h").cwd == "/"


def test_a_folder_that_is_not_absolute_is_refused() -> None:
    with pytest.raises(InvalidOptions, match="the working directory 'src' is not an absolute path of the container"):
        process_of(PLAIN, Wish(cwd="src"), "h")


def test_a_terminal_has_its_size() -> None:
    process = process_of(PLAIN, Wish(console_size=(30, 100)), "h")
    assert process.terminal
    assert process.console_size is not None
    assert (process.console_size.height, process.console_size.width) == (30, 100)
    assert not process_of(PLAIN, Wish(), "h").terminal


# -- capabilities -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("add", "drop", "granted"),
    [
        ((), (), set(capabilities.DEFAULT)),
        (("NET_ADMIN",), (), {*capabilities.DEFAULT, "CAP_NET_ADMIN"}),
        (("cap_net_admin", "Sys_Time"), ("MKNOD",), {*capabilities.DEFAULT, "CAP_NET_ADMIN", "CAP_SYS_TIME"} - {"CAP_MKNOD"}),
        (("ALL",), (), set(capabilities.ALL)),
        (("all",), ("SYS_ADMIN",), set(capabilities.ALL) - {"CAP_SYS_ADMIN"}),
        ((), ("ALL",), set()),
        (("CHOWN",), ("ALL",), {"CAP_CHOWN"}),
    ],
)
def test_capabilities_are_dockers_and_what_is_named_wins_over_all(add: tuple[str, ...], drop: tuple[str, ...], granted: set[str]) -> None:
    found = process_of(PLAIN, Wish(cap_add=add, cap_drop=drop), "h").capabilities
    assert found is not None
    assert set(found.bounding) == set(found.effective) == set(found.permitted) == granted
    assert found.inheritable == found.ambient == []


def test_the_default_capabilities_are_fourteen_of_all_that_there_are() -> None:
    assert len(capabilities.DEFAULT) == 14
    assert set(capabilities.DEFAULT) < set(capabilities.ALL)
    assert len(set(capabilities.ALL)) == 41


@pytest.mark.parametrize(
    ("add", "drop", "says"),
    [
        (("NET_ADMINS",), (), "no capability is called 'NET_ADMINS'"),
        ((), ("",), "no capability is called ''"),
        (("KILL",), ("CAP_KILL",), "capability CAP_KILL is both added and dropped"),
    ],
)
def test_a_capability_that_makes_no_sense_is_refused(add: tuple[str, ...], drop: tuple[str, ...], says: str) -> None:
    with pytest.raises(InvalidOptions, match=says):
        capabilities.granted(add, drop)


# -- the container ------------------------------------------------------------------------------------------------------


def test_a_container_has_dockers_surroundings() -> None:
    made = spec()
    assert made.hostname == "0123456789ab"
    assert list(mounts()) == ["/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm"]
    assert made.linux is not None
    assert {"/proc/kcore", "/sys/firmware"} < set(made.linux.masked_paths)
    assert "/proc/sys" in made.linux.readonly_paths
    assert {one.type for one in made.linux.namespaces} == {"pid", "network", "ipc", "uts", "mount", "cgroup"}
    assert made.linux.seccomp is None
    assert made.root is not None
    assert not made.root.readonly


def test_a_specification_can_be_written_and_read_again() -> None:
    made = spec(memory=64 << 20, cpus=0.5, ulimits=(Ulimit("nofile", 1, 2**64 - 1),), sysctls=(("net.ipv4.ip_forward", "1"),))
    assert msgspec.json.decode(msgspec.json.encode(made), type=Spec) == made


def test_limits_are_of_the_container() -> None:
    made = spec(memory=64 << 20, cpus=1.5, ulimits=(Ulimit("nofile", 10, 20),), sysctls=(("net.ipv4.ip_forward", "1"),), hostname="box")
    assert made.hostname == "box"
    assert made.linux is not None
    resources: Resources | None = made.linux.resources
    assert resources is not None
    assert resources.memory is not None
    assert resources.memory.limit == 64 << 20
    assert resources.cpu is not None
    assert (resources.cpu.quota, resources.cpu.period) == (150_000, 100_000)
    assert made.linux.sysctl == {"net.ipv4.ip_forward": "1"}
    assert made.process is not None
    assert [(one.type, one.soft, one.hard) for one in made.process.rlimits] == [("RLIMIT_NOFILE", 10, 20)]


def test_processes_and_shared_memory_are_as_many_as_is_said() -> None:
    for number, pids in ((None, None), (5, PidsLimit(limit=5))):
        linux = spec(pids=number).linux
        assert linux is not None
        assert linux.resources is not None
        assert linux.resources.pids == pids
    assert mounts()["/dev/shm"].options[-1] == "size=67108864"
    assert mounts(shm_size=1 << 20)["/dev/shm"].options[-1] == "size=1048576"


@pytest.mark.parametrize("cpus", [None, 2.0])
def test_whole_processors_are_those_of_the_vm_and_need_no_limit(cpus: float | None) -> None:
    made = spec(cpus=cpus)
    assert made.linux is not None
    assert made.linux.resources is not None
    assert made.linux.resources.cpu is None
    assert made.linux.resources.memory is None


def test_the_vm_is_as_large_as_the_container_needs() -> None:
    assert vm_size(Wish()) == {}
    assert vm_size(Wish(cpus=1.5)) == {"processor_count": 2}
    assert vm_size(Wish(cpus=0.25)) == {"processor_count": 1}
    small, large = (vm_size(Wish(memory=size))["memory_size_in_mb"] << 20 for size in (64 << 20, 8 << 30))
    assert small > (64 << 20) + GUEST_MEMORY
    assert large > (8 << 30) + GUEST_MEMORY + (8 << 30) // 64
    assert not any(vm_size(Wish(memory=size << 20))["memory_size_in_mb"] % 2 for size in range(6, 300))  # nobody is warned of rounding


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ({"cwd": "here"}, "the working directory 'here' is not an absolute path of the container"),
        ({"env": (("A B\0", "1"),)}, "has a zero byte"),
        ({"env": (("", "1"),)}, "cannot name an environment variable: it is empty"),
        ({"env": (("A=B", None),)}, "cannot name an environment variable: it has a '='"),
        ({"env": (("A", "\udcff"),)}, "is not UTF-8"),
        ({"args": ("a", "\udcff")}, "is not UTF-8"),
        ({"entrypoint": ("a\0",)}, "has a zero byte"),
        ({"user": "\ud800"}, "is not UTF-8"),
        ({"cap_add": ("NET",)}, "no capability is called 'NET'"),
    ],
)
def test_what_no_image_could_make_right_is_refused_without_one(wish: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidOptions, match=says):
        check_wish(Wish(**wish))
    check_wish(Wish(args=("", "ü"), env=(("A", None), ("B C", "")), cwd="/", user="nobody:6"))


# -- mounts -------------------------------------------------------------------------------------------------------------


def test_volumes_and_file_systems_in_memory_are_mounted_the_outer_ones_first() -> None:
    made = spec(
        volumes=(Volume("/a/b/c", path="/src", read_only=True), Volume("/a", name="data", size=1 << 30)),
        tmpfs=(Tmpfs("/a/b", ("nodev", "size=1m")),),
    )
    assert made.mounts[-3:] == [
        Mount(destination="/a", type="volume", source="data", options=["rw", "size=1073741824"]),
        Mount(destination="/a/b", type="tmpfs", source="tmpfs", options=["nodev", "size=1m"]),
        Mount(destination="/a/b/c", type="bind", source="/src", options=["rbind", "ro"]),
    ]


def test_a_volume_is_filled_unless_it_is_said_not_to() -> None:
    volumes = (Volume("/a", name="data"), Volume("/b", name="bare", read_only=True, copy=False))
    assert [mount.options for mount in spec(volumes=volumes).mounts[-2:]] == [["rw"], ["ro", "nocopy"]]


def test_a_users_mount_takes_the_place_of_a_usual_one() -> None:
    found = mounts(tmpfs=(Tmpfs("/dev/shm", ("size=1g",)),))
    assert found["/dev/shm"].options == ["size=1g"]
    assert len(found) == 7


@pytest.mark.parametrize("second", [Volume("/a/", name="xy"), Volume("//a", path="/b")])
def test_two_things_at_one_place_are_refused(second: Volume) -> None:
    with pytest.raises(InvalidOptions, match="^two things are mounted at /a$"):
        spec(volumes=(Volume("/a", path="/x"), second))


def test_what_an_image_calls_volumes_is_beside_its_root_and_can_be_written_whatever_that_is() -> None:
    config = replace(PLAIN, volumes=("/var/lib/db", "/logs"))
    assert [mounts(config)[place].source for place in config.volumes] == ["0", "1"]
    made = spec(config, read_only=True, volumes=(Volume("/logs", name="logs"),))
    assert made.root is not None
    assert made.root.readonly
    found = {mount.destination: mount for mount in made.mounts}
    assert found["/logs"].type == "volume"
    assert found["/var/lib/db"] == Mount(destination="/var/lib/db", type="scratch", source="0", options=["rw"])


def test_a_container_is_in_the_network_of_its_vm_only_when_that_is_wanted() -> None:
    alone, shared = (spec(args=("true",), vm_network=wanted).linux for wanted in (False, True))
    assert alone is not None
    assert shared is not None
    assert [namespace for namespace in alone.namespaces if namespace.type != "network"] == shared.namespaces != alone.namespaces
