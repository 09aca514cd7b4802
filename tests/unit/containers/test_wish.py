"""docker's spellings of sizes, variables, volumes, limits: what each means, and what is refused."""

import pytest

from utilityvm.containers import wish
from utilityvm.containers.wish import Tmpfs, Ulimit, Volume
from utilityvm.kit.errors import InvalidOptions

UNLIMITED = 2**64 - 1
MINE = {"HERE": "mine", "EMPTY": ""}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("6291456", 6 << 20),
        ("512m", 512 << 20),
        ("512M", 512 << 20),
        ("512mb", 512 << 20),
        ("512MiB", 512 << 20),
        ("1.5g", 3 << 29),
        ("64 MiB", 64 << 20),
        ("9000k", 9000 << 10),
        ("1t", 1 << 40),
        ("7000000b", 7000000),
    ],
)
def test_a_size_is_dockers(text: str, size: int) -> None:
    assert wish.parse_size(text) == wish.parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "m", "-1", "1x", "1mm", "1.m", "1e3", "1 m b", "0x10", "9" * 400 + "g"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidOptions, match="is not a size"):
        wish.parse_size(text)


def test_memory_without_its_unit_is_told_with_it() -> None:
    with pytest.raises(InvalidOptions, match="'512' is 512 bytes of memory; a container needs 6 MiB at least") as caught:
        wish.parse_memory("512")
    assert caught.value.hint == "with a unit: 512m"
    with pytest.raises(InvalidOptions, match="at least"):
        wish.parse_memory("5m")


def test_processors_are_counted_in_parts() -> None:
    assert [wish.parse_cpus(text) for text in ("1", "1.5", ".5", "0.01")] == [1, 1.5, 0.5, 0.01]


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "two", "70000", "0.001"])
def test_what_is_no_number_of_processors_is_refused(text: str) -> None:
    with pytest.raises(InvalidOptions, match="is not a number of processors"):
        wish.parse_cpus(text)


@pytest.mark.parametrize(
    ("word", "variable"),
    [
        ("A=1=2", ("A", "1=2")),
        ("A=", ("A", "")),
        ("HERE", ("HERE", "mine")),
        ("EMPTY", ("EMPTY", "")),
        ("NOWHERE", ("NOWHERE", None)),
    ],
)
def test_a_variable_without_a_value_has_that_of_the_host(word: str, variable: tuple[str, str | None]) -> None:
    assert wish.parse_env(word, MINE) == variable


def test_a_file_of_variables_is_read_as_docker_does() -> None:
    text = "\ufeff# a comment\n\nA=1\n  \tB=two words \n#C=3\nD='quoted'\nHERE\nNOWHERE\nE=x#y\n"
    assert wish.parse_env_file(text, "f", MINE) == [("A", "1"), ("B", "two words "), ("D", "'quoted'"), ("HERE", "mine"), ("E", "x#y")]
    assert wish.parse_env_file("A=1\f2\u2028B=3\r\nC=4\r\n", "f", {}) == [("A", "1\f2\u2028B=3"), ("C", "4")]  # a line ends nowhere else


@pytest.mark.parametrize(("text", "line"), [("A=1\n=2", 2), ("A B=1", 1), ("export A=1", 1)])
def test_a_wrong_line_of_such_a_file_is_told_by_its_number(text: str, line: int) -> None:
    with pytest.raises(InvalidOptions, match=f"f, line {line}: .* is not NAME=VALUE"):
        wish.parse_env_file(text, "f", {})
    with pytest.raises(InvalidOptions, match="without a name"):
        wish.parse_env("=1", {})


@pytest.mark.parametrize(
    ("text", "volume"),
    [
        ("/a:/b", Volume("/b", path="/a")),
        ("/a:/b:ro", Volume("/b", path="/a", read_only=True)),
        ("/a:/b:rw", Volume("/b", path="/a")),
        ("./a:/b", Volume("/b", path="./a")),
        (".:/b", Volume("/b", path=".")),
        ("data:/b", Volume("/b", name="data")),
        ("data:/b:size=1g", Volume("/b", name="data", size=1 << 30)),
        ("data:/b:ro,size=1g", Volume("/b", name="data", read_only=True, size=1 << 30)),
        ("my.data-2:/b:ro", Volume("/b", name="my.data-2", read_only=True)),
        ("d:/b:nocopy,size=1g", Volume("/b", name="d", size=1 << 30, copy=False)),
    ],
)
def test_a_volume_is_a_path_or_a_name(text: str, volume: Volume) -> None:
    assert wish.parse_volume(text) == volume


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("/data", "'/data' is a volume without a source"),
        (":/b", "is not SOURCE:PATH"),
        ("/a:/b:ro:x", "is not SOURCE:PATH"),
        ("/a:b", "'b' is not an absolute path of the container below /"),
        ("/a:/", "'/' is not an absolute path of the container below /"),
        ("/a:/b:Z", "'Z' is for SELinux, which the guest has not"),
        ("/a:/b:size=1g", "a folder of the host has no size of its own"),
        ("data:/b:size=big", "'big' is not a size"),
        ("/a:/b:shared", "a volume has the options ro, rw, size=SIZE and nocopy, and not 'shared'"),
        ("/a:/b:nocopy", "nocopy is for volumes that have a name"),
        ("x" * 129 + ":/b", "x' cannot name a volume"),
        ("data:/\udcff", "is not UTF-8"),
        ("data:/\0", "has a zero byte"),
        ("-x:/b", "'-x' cannot name a volume"),
    ],
)
def test_what_is_no_volume_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidOptions, match=says):
        wish.parse_volume(text)


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("type=bind,source=/a,target=/b", Volume("/b", path="/a")),
        ("type=bind,src=a,dst=/b,readonly", Volume("/b", path="a", read_only=True)),
        ("type=bind,source=/a,destination=/b,ro=true", Volume("/b", path="/a", read_only=True)),
        ("source=data,target=/b", Volume("/b", name="data")),
        ("type=volume,src=data,dst=/b,volume-nocopy,readonly=false", Volume("/b", name="data", copy=False)),
        ("type=tmpfs,target=/t", Tmpfs("/t")),
        (
            "type=tmpfs,target=/t,tmpfs-size=64m,tmpfs-mode=1777,readonly",
            Tmpfs("/t", ("noexec", "nosuid", "nodev", "size=64m", "mode=1777", "ro")),
        ),
    ],
)
def test_a_mount_is_said_in_words(text: str, made: Volume | Tmpfs) -> None:
    assert wish.parse_mount(text) == made


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("type=npipe,target=/b", "a mount is of the type bind, volume, tmpfs, and not 'npipe'"),
        ("type=bind,target=/b", "source is missing: a path of the host"),
        ("target=/b", "source is missing: a name of a volume"),
        ("type=bind,source=/a", "'' is not an absolute path of the container"),
        ("type=tmpfs,target=/b,source=/a", "a mount of the type tmpfs has no 'source'"),
        ("type=bind,source=/a,target=/b,bind-propagation=shared", "a mount of the type bind has no 'bind-propagation'"),
        ("type=bind,source=/a,target=/b,readonly=maybe", "'maybe' is neither true nor false"),
        ("type=volume,source=a/b,target=/b", "'a/b' cannot name a volume"),
        ("type=tmpfs,target=/b,tmpfs-size=", "tmpfs has no option 'size='"),
    ],
)
def test_what_is_no_mount_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidOptions, match=says):
        wish.parse_mount(text)


@pytest.mark.parametrize(("text", "number"), [("5", 5), ("0", -1), ("-1", -1)])
def test_processes_are_counted_or_any(text: str, number: int) -> None:
    assert wish.parse_pids(text) == number


@pytest.mark.parametrize("text", ["", "-2", "x", "1.5", "9999999999"])
def test_what_is_no_number_of_processes_is_refused(text: str) -> None:
    with pytest.raises(InvalidOptions, match="is not a number of processes"):
        wish.parse_pids(text)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("/t", ("noexec", "nosuid", "nodev")),
        ("/t:", ("noexec", "nosuid", "nodev")),
        ("/t:size=64m,mode=1777", ("noexec", "nosuid", "nodev", "size=64m", "mode=1777")),
        ("/t:exec", ("nosuid", "nodev", "exec")),
        ("/t:rw,noexec,suid", ("nodev", "rw", "noexec", "suid")),
    ],
)
def test_a_tmpfs_is_closed_but_for_what_its_options_open(text: str, options: tuple[str, ...]) -> None:
    assert wish.parse_tmpfs(text) == Tmpfs("/t", options)


@pytest.mark.parametrize("text", ["/t:size", "/t:size=", "/t:bind", "/t:ro=1", "/t:x=1"])
def test_an_option_that_tmpfs_has_not_is_refused(text: str) -> None:
    with pytest.raises(InvalidOptions, match="tmpfs has no option") as caught:
        wish.parse_tmpfs(text)
    assert "size=" in caught.value.hint


def test_a_limit_is_soft_and_hard() -> None:
    assert wish.parse_ulimit("nofile=1024:2048") == Ulimit("nofile", 1024, 2048)
    assert wish.parse_ulimit("nproc=7") == Ulimit("nproc", 7, 7)
    assert wish.parse_ulimit("core=0:-1") == Ulimit("core", 0, UNLIMITED)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("files=1", "no limit is called 'files'"),
        ("nofile", "is not NAME=SOFT"),
        ("nofile=", "is not NAME=SOFT"),
        ("nofile=a", "is not NAME=SOFT"),
        ("nofile=1:2:3", "is not NAME=SOFT"),
        ("nofile=2:1", "the soft limit is above the hard one"),
        ("nofile=-1:5", "the soft limit is above the hard one"),
    ],
)
def test_what_is_no_limit_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidOptions, match=says):
        wish.parse_ulimit(text)


@pytest.mark.parametrize("name", ["net.ipv4.ip_forward", "fs.mqueue.msg_max", "kernel.shmmax", "kernel.msgmni"])
def test_a_parameter_of_the_kernel_is_the_containers_own(name: str) -> None:
    assert wish.parse_sysctl(f"{name}=1 2") == (name, "1 2")


@pytest.mark.parametrize("text", ["kernel.panic=1", "vm.swappiness=1", "fs.file-max=5"])
def test_one_that_is_the_kernels_alone_is_refused(text: str) -> None:
    with pytest.raises(InvalidOptions, match="is the kernel's, not a container's own"):
        wish.parse_sysctl(text)


@pytest.mark.parametrize("text", ["net.ipv4.ip_forward", "=1", ""])
def test_a_parameter_has_a_value(text: str) -> None:
    with pytest.raises(InvalidOptions, match="is not NAME=VALUE"):
        wish.parse_sysctl(text)


@pytest.mark.parametrize("text", ["box", "a.b-c.example", "9", "x" * 64])
def test_a_host_has_a_name(text: str) -> None:
    assert wish.parse_hostname(text) == text


@pytest.mark.parametrize("text", ["", "-a", "a-", "a_b", "x" * 65, "a b"])
def test_what_cannot_name_a_host_is_refused(text: str) -> None:
    with pytest.raises(InvalidOptions, match="is not a host's name"):
        wish.parse_hostname(text)
