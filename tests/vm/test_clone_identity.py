"""What is one VM's own and what two clones of a template share: each row of docs/explanation/clones.md, on two of them."""

import asyncio
import re
import tarfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from utilityvm import GuestError, Sandbox, Template, UserNetwork, UtilityVM, create_lcow, default_options_lcow, open_template
from utilityvm.boot.files import BootFiles
from utilityvm.kit import reseed
from utilityvm.kit.ids import new_guid

from .foreign import PATH, put_into
from .once import once
from .python_image import write_python_image
from .running import LIMIT, ended, sh, until
from .small import OLD, a_template_vm, two_clones

pytestmark = pytest.mark.asyncio(loop_scope="module")

PORT = 5000
HOOKS = "/etc/utilityvm/after-clone.d"

GENERATOR = """
mkfifo /run/t/{0}
awk '{{ if ($1 == "seed") srand($2); else print rand() >"/run/t/number-{0}"; fflush() }} BEGIN {{ srand(42) }}' \
  <>/run/t/{0} >/dev/null 2>&1 &
"""
"""A program that has a generator of random numbers: a line is asked for one, or tells it a seed."""

WARM = f"""
{OLD}
mkdir -p {HOOKS} /run/t
cat >{HOOKS}/10-test
chmod +x {HOOKS}/10-test
echo 00000000000000000000000000000000 >/etc/machine-id
{GENERATOR.format("told")}
{GENERATOR.format("untold")}
mkfifo /run/t/write
(exec 3>/run/t/open; while read word; do echo $word >&3; done <>/run/t/write) >/dev/null 2>&1 &
echo before >/run/t/write
until grep -q before /run/t/open; do :; done
cat /proc/sys/kernel/random/boot_id >/dev/null
"""

HOOK = """#!/bin/sh
echo "seed $(od -An -N4 -tu4 /dev/urandom)" >/run/t/told
hostname >/run/t/hooked
"""

NUMBER = "echo number >/run/t/{0}; until test -s /run/t/number-{0}; do :; done; cat /run/t/number-{0}"


@dataclass(frozen=True)
class Warmed:
    """A template; `uptime` was read so many `seconds` before its VM stood still. The program of the id `waiting` says what it is told."""

    template: Template
    uptime: float
    seconds: float
    waiting: int


async def uptime(vm: UtilityVM) -> float:
    return float((await sh(vm, "cat /proc/uptime")).out.split()[0])


async def made(boot_files: BootFiles, hook: str) -> Warmed:
    async with await a_template_vm(boot_files, f"test-{new_guid()}") as vm:
        await vm.start()
        warming = await vm.create_process(["sh", "-c", WARM], stdin=True)
        await warming.stdin.write(hook.encode())
        await warming.stdin.write_eof()
        assert (await ended(warming)).code == 0
        await put_into(vm)
        with closing(vm.listen(PORT)) as listener:
            await vm.create_process(["sh", "-c", f"{PATH} hear {PORT}; echo ended >/run/t/connection"], stdout=False, stderr=False)
            await listener.accept()
        assert (await sh(vm, f"({PATH} alarm 1000000 && echo over >/run/t/alarm) >/dev/null 2>&1 &")).code == 0
        waiting = await vm.create_process(["sh", "-c", "read x; echo $x"], stdin=True)
        left = await vm.create_process(
            ["sh", "-c", "(echo >/run/t/begun; trap '' PIPE; while echo 0123456789; do :; done; echo over >/run/t/left) & exit 0"],
            stderr=False,
        )
        assert await left.wait() == 0
        assert (await sh(vm, "(sleep 1; echo over >/run/t/timer) >/dev/null 2>&1 &")).code == 0
        assert (await sh(vm, "test -e /run/t/alarm")).code == 1
        up, begin = await uptime(vm), time.monotonic()
        await vm.save_as_template()
        return Warmed(await open_template(vm.id), up, time.monotonic() - begin, waiting.pid)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def warmed(boot_files: BootFiles) -> AsyncIterator[Warmed]:
    """A template with programs that run."""
    found = await made(boot_files, HOOK)
    yield found
    await found.template.remove()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(warmed: Warmed) -> AsyncIterator[Sequence[UtilityVM]]:
    """Two clones of it, that run."""
    async with two_clones(warmed.template) as clones:
        yield clones


async def of_both(pair: Sequence[UtilityVM], script: str) -> list[str]:
    """Return what a script says in each."""
    done = [await sh(vm, script) for vm in pair]
    assert [one.code for one in done] == [0, 0], done
    return [one.out.decode().strip() for one in done]


async def test_random_numbers_of_the_kernel_are_its_own(pair: Sequence[UtilityVM]) -> None:
    first, second = await of_both(pair, "dmesg | grep -c 'crng reseeded due to virtual machine fork'; head -c 32 /dev/urandom | sha256sum")
    assert first.startswith("1\n")
    assert second.startswith("1\n")
    assert first != second


async def test_random_numbers_of_a_program_are_its_own_when_a_hook_tells_it(pair: Sequence[UtilityVM]) -> None:
    first, second = await of_both(pair, NUMBER.format("told"))
    assert first != second


async def test_random_numbers_of_a_program_that_nobody_tells_are_those_of_all(pair: Sequence[UtilityVM]) -> None:
    first, second = await of_both(pair, NUMBER.format("untold"))
    assert first == second


INTERPRETER = """
import random, ssl, sys
name = sys.argv[1]
random.seed(42)
ssl.RAND_bytes(1)
if name == "told":
    import reseed
    reseed.install()
print("ready", file=open("/run/t/ready-" + name, "w"), flush=True)
for line in sys.stdin:
    print(random.random(), ssl.RAND_bytes(8).hex(), file=open("/run/t/number-" + name, "w"), flush=True)
"""
"""A Python program that was warmed up: it has a line for each line, of a number and bytes that nobody could know."""

WARM_PYTHON = """
mkdir -p /run/t
tar -x -C /
for name in told untold; do
  mkfifo /run/t/$name
  PYTHONPATH=/run/t python3 /run/t/interpreter.py $name <>/run/t/$name >/dev/null 2>&1 &
done
until test -s /run/t/ready-told && test -s /run/t/ready-untold; do :; done
"""


@pytest.mark.once
async def test_a_python_program_that_installs_our_helper_has_numbers_of_its_own_also_of_openssl(
    boot_files: BootFiles, tmp_path: Path
) -> None:
    archive, program = tmp_path / "python.tar", tmp_path / "interpreter.py"
    write_python_image(archive)
    program.write_text(INTERPRETER)
    with tarfile.open(archive, "a") as tar:
        tar.add(program, arcname="/run/t/interpreter.py")
        tar.add(reseed.__file__, arcname="/run/t/reseed.py")
    options = default_options_lcow(id=f"test-{new_guid()}", is_template=True, boot_files_path=str(boot_files.folder), memory_size_in_mb=512)
    async with await create_lcow(options) as vm:
        await vm.start()
        warming = await vm.create_process(["sh", "-c", WARM_PYTHON], stdin=True, stdout=False)
        await warming.stdin.write(archive.read_bytes())
        await warming.stdin.write_eof()
        async with asyncio.timeout(LIMIT):
            assert await warming.wait() == 0
        await warming.close()
        await vm.save_as_template()
    template = await open_template(options.id)
    try:
        async with await template.clone() as one, await template.clone() as other:
            await one.start()
            await other.start()
            first, second = await of_both((one, other), NUMBER.format("untold"))
            assert first == second
            first, second = await of_both((one, other), NUMBER.format("told"))
            assert not set(first.split()) & set(second.split())
    finally:
        await template.remove()


@pytest.mark.parametrize(("hook", "said"), [*once(("exit 3", "exit status 3")), ("sleep 60", "it was killed after 5 s")])
async def test_a_hook_that_fails_or_takes_too_long_fails_the_start(boot_files: BootFiles, hook: str, said: str) -> None:
    found = await made(boot_files, f"#!/bin/sh\n{hook}\n")
    try:
        async with await found.template.clone() as vm:
            with pytest.raises(GuestError, match=f"{HOOKS}/10-test: .*{said}"):
                await vm.start()
    finally:
        await found.template.remove()


async def test_the_clock_is_now(pair: Sequence[UtilityVM]) -> None:
    for vm in pair:
        assert abs(float((await sh(vm, "date +%s")).out) - time.time()) < 3


async def test_monotonic_time_stands_still_while_nothing_runs_and_never_goes_back(warmed: Warmed) -> None:
    async with await warmed.template.clone() as vm:
        begin = time.monotonic()
        await vm.start()
        went_on = await uptime(vm) - warmed.uptime
        assert 0 <= went_on <= time.monotonic() - begin + warmed.seconds + 0.1


async def test_timers_go_on_with_the_rest_of_their_time_and_are_over_by_the_clock(pair: Sequence[UtilityVM]) -> None:
    for vm in pair:
        await until(vm, "grep over /run/t/timer && grep over /run/t/alarm")


async def test_the_hostname_is_the_vms_id_and_hooks_see_it(pair: Sequence[UtilityVM]) -> None:
    assert await of_both(pair, "hostname") == [vm.id for vm in pair]
    assert await of_both(pair, "cat /run/t/hooked") == [vm.id for vm in pair]


async def test_the_machine_id_is_its_own(pair: Sequence[UtilityVM]) -> None:
    first, second = await of_both(pair, "cat /etc/machine-id")
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert len({first, second, "0" * 32}) == 3


async def test_the_boot_id_is_that_of_the_template_once_a_program_has_read_it(pair: Sequence[UtilityVM]) -> None:
    first, second = await of_both(pair, "cat /proc/sys/kernel/random/boot_id")
    assert first == second


async def test_the_boot_id_is_its_own_where_nobody_had_read_it_and_so_are_disks_and_addresses() -> None:
    """Sandboxes go on from a template in which no program has run."""
    seen = []
    for word in ("first", "second"):
        async with Sandbox("busybox", options={"memory_size_in_mb": 256, "processor_count": 1}, network=UserNetwork()) as box:
            assert (await box.run("ls", "/written")).exit_code != 0
            await box.files.write("/written", word)
            said = (await box.run("cat", "/proc/sys/kernel/random/boot_id", "/sys/class/net/eth0/address", "/written")).text
            seen.append((box.vm.options.is_clone, *said.split()))
    cloned = [one for one in seen if one[0]]
    assert len(cloned) == 2
    for first, second in zip(*(one[1:] for one in cloned), strict=True):
        assert first != second


async def test_connections_to_the_host_have_ended(pair: Sequence[UtilityVM]) -> None:
    for vm in pair:
        await until(vm, "grep ended /run/t/connection")


async def test_streams_of_programs_wait_for_who_takes_them_over(pair: Sequence[UtilityVM], warmed: Warmed) -> None:
    for vm in pair:
        process = await vm.attach_process(warmed.waiting)
        await process.stdin.write(f"{vm.id}\n".encode())
        done = await ended(process)
        assert (done.code, done.out) == (0, f"{vm.id}\n".encode())


async def test_streams_that_a_program_had_left_to_others_have_ended(pair: Sequence[UtilityVM]) -> None:
    for vm in pair:
        await until(vm, "grep over /run/t/left")


async def test_open_files_are_open_and_what_is_written_to_them_is_its_own(pair: Sequence[UtilityVM]) -> None:
    for vm, word in zip(pair, ("one", "two"), strict=True):
        await sh(vm, f"echo {word} >/run/t/write; until grep {word} /run/t/open; do :; done")
    assert await of_both(pair, "cat /run/t/open") == ["before\none", "before\ntwo"]


async def test_where_a_program_that_runs_lies_in_memory_is_the_same_and_of_a_new_one_it_is_not(pair: Sequence[UtilityVM]) -> None:
    first, second = await of_both(pair, "grep stack /proc/$(pidof awk | cut -d' ' -f1)/maps")
    assert first == second
    first, second = await of_both(pair, "grep stack /proc/self/maps")
    assert first != second


async def test_what_was_secret_in_the_template_is_in_a_file_of_its_owner_alone(warmed: Warmed) -> None:
    folder = warmed.template.folder
    assert folder.stat().st_mode & 0o077 == 0
    assert folder.parent.stat().st_mode & 0o077 == 0
