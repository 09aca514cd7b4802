"""What `uvm run` would open, without a VM."""

import argparse
from pathlib import Path
from typing import Any

import pytest

from utilityvm import Sandbox, UserNetwork
from utilityvm.cli import run
from utilityvm.containers.scratch import SCRATCH_SIZE
from utilityvm.images.image import Image, ImageConfig
from utilityvm.images.names import parse
from utilityvm.kit.errors import InvalidOptions
from utilityvm.sandbox.opening import Plan, Pull
from utilityvm.wire.oci import Namespace

CONFIG = ImageConfig(architecture="amd64", os="linux", cmd=("sh",))
IMAGE = Image(parse("busybox"), "sha256:0", "sha256:1", CONFIG, (), 0)


def plan(*words: str) -> Plan:
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    return run.plan_of(parser.parse_args(words))


def test_an_image_is_all_that_is_needed() -> None:
    made = plan("busybox")
    assert (made.image, made.pull, made.scratch_size) == ("busybox", Pull.MISSING, SCRATCH_SIZE)
    assert len(made.container_id) == 12
    spec = made.spec(IMAGE)
    assert spec.hostname == made.container_id
    assert spec.process is not None
    assert spec.process.args == ["sh"]


@pytest.mark.parametrize(
    ("words", "args"),
    [
        (["busybox", "ls", "-l", "--rm", "-i"], ["ls", "-l", "--rm", "-i"]),
        (["--rm", "-i", "--name", "box", "busybox", "sh", "-c", "exit 3"], ["sh", "-c", "exit 3"]),
        (["--entrypoint", "ls", "busybox", "--", "-l"], ["ls", "--", "-l"]),
        (["busybox", "--help"], ["--help"]),
        (["--", "busybox", "ls"], ["ls"]),
    ],
)
def test_all_words_after_the_image_are_the_commands(words: list[str], args: list[str]) -> None:
    spec = plan(*words).spec(IMAGE)
    assert spec.process is not None
    assert spec.process.args == args


def test_the_vm_is_as_large_as_the_container_needs_unless_its_size_is_given(tmp_path: Path) -> None:
    usual = plan("busybox").options
    made = plan("--cpus", "1", "-m", "64m", "busybox").options
    assert made.processor_count == 1
    assert 64 < made.memory_size_in_mb < usual.memory_size_in_mb
    given = plan("--cpus", "1", "-m", "64m", "--memory-size-in-mb", "512", "busybox").options
    assert (given.processor_count, given.memory_size_in_mb) == (1, 512)
    (file := tmp_path / "vm.toml").write_text("memory_size_in_mb = 600\n")
    given = plan("--cpus", "1", "-m", "64m", "--options", str(file), "busybox").options
    assert (given.processor_count, given.memory_size_in_mb) == (1, 600)


def test_a_name_is_the_containers_and_its_vms() -> None:
    made = plan("--name", "box.1", "busybox")
    assert (made.container_id, made.options.id) == ("box.1", "box.1")
    assert made.spec(IMAGE).hostname == "box.1"


def test_the_disk_is_as_large_as_is_said() -> None:
    assert plan("--scratch-size", "1g", "busybox").scratch_size == 1 << 30


@pytest.mark.parametrize("size", ["0", "1k", "100000t"])
def test_a_disk_of_no_possible_size_is_refused_before_anything_is_made(size: str) -> None:
    with pytest.raises(InvalidOptions, match="scratch_size is .*: a disk has from 16 MiB to 16 TiB"):
        plan("--scratch-size", size, "busybox")


def test_a_container_without_a_guest_connection_is_refused() -> None:
    with pytest.raises(InvalidOptions, match="a container needs the guest connection"):
        plan("--no-use-guest-connection", "busybox")


@pytest.mark.parametrize("words", [["--pull", "often", "busybox"], ["--memory", "x", "busybox"], ["--nonsense", "busybox"]])
def test_what_makes_no_sense_is_a_mistake_of_the_line(words: list[str]) -> None:
    with pytest.raises(SystemExit):
        plan(*words)


@pytest.mark.parametrize("words", [[], ["--"], ["-i", "--rm"]])
def test_a_line_without_an_image_is_told(words: list[str]) -> None:
    with pytest.raises(InvalidOptions, match="^no image: say which, e.g. uvm run busybox uname -a$"):
        plan(*words)


@pytest.mark.parametrize("words", [["--network", "user"], ["--network-config-proxy", "/run/proxy"]])
def test_a_container_is_in_the_vms_network_whoever_sets_that_up(words: list[str]) -> None:
    assert "network" in {namespace.type for namespace in linux(plan("busybox"))}
    assert "network" not in {namespace.type for namespace in linux(plan(*words, "busybox"))}


def linux(made: Plan) -> list[Namespace]:
    spec = made.spec(IMAGE)
    assert spec.linux is not None
    return spec.linux.namespaces


@pytest.mark.parametrize("given", [{"network": UserNetwork()}, {"options": {"network_config_proxy": "/run/proxy"}}])
def test_so_is_a_sandbox(given: dict[str, Any]) -> None:
    for box, has in ((Sandbox("busybox"), True), (Sandbox("busybox", **given), False)):
        spec = box._plan.spec(IMAGE)
        assert spec.linux is not None
        assert ("network" in {namespace.type for namespace in spec.linux.namespaces}) is has
