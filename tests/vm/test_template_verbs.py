"""`uvm template` and `--from` with real virtual machines; the lines of the page are run by test_templates_page."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from utilityvm.boot.files import BootFiles
from utilityvm.kit.ids import new_guid

from .running import uvm

pytestmark = pytest.mark.asyncio(loop_scope="module")


def size(boot_files: BootFiles) -> tuple[str, ...]:
    return ("--memory", "256", "--cpus", "1", "--boot-files-path", str(boot_files.folder))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def warm(boot_files: BootFiles) -> AsyncIterator[str]:
    """The name of a template in which a program runs on."""
    name = f"test-{new_guid()}"
    made = await uvm("template", "create", *size(boot_files), name, "sh", "-c", "echo on its way; sleep 99999 >/dev/null 2>&1 &")
    assert (made.code, made.out.decode(), made.err) == (0, f"on its way\n{name}\n", b"")
    yield name
    assert (await uvm("template", "rm", name)).code == 0


async def test_what_a_warm_up_leaves_running_runs_in_each_vm(warm: str) -> None:
    for _ in range(2):
        done = await uvm("boot", "--from", warm, "--", "sh", "-c", "pidof sleep >/dev/null && killall sleep && exit 7")
        assert (done.code, done.err) == (7, b"")


async def test_a_container_runs_in_a_vm_from_a_template_with_its_limits(warm: str) -> None:
    done = await uvm("run", "--from", warm, "-m", "64m", "--hostname", "box", "busybox", "sh", "-c", "hostname; pidof sleep")
    assert (done.code, done.out, done.err) == (1, b"box\n", b"")


async def test_options_that_are_not_the_templates_end_it_before_anything_starts(warm: str) -> None:
    done = await uvm("boot", "--from", warm, "--memory", "512", "--", "true")
    assert (done.code, done.err.splitlines()[0].decode()) == (125, f"uvm: --from {warm}: --memory-size-in-mb is 512, the template's is 256")
    done = await uvm("run", "--from", "absent", "busybox", "true")
    assert done.code == 125
    assert b"template absent: there is none in " in done.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["sh", "-c", "exit 3"], 8, "sh ended with 3: nothing was saved"),
        (["sleep", "99"], 11, "sleep still ran after 0.5 s: nothing was saved"),
    ],
)
async def test_a_warm_up_that_fails_or_takes_too_long_leaves_no_template(
    boot_files: BootFiles, words: list[str], code: int, said: str
) -> None:
    name = f"test-{new_guid()}"
    done = await uvm("template", "create", *size(boot_files), "--timeout", "0.5", name, *words)
    assert (done.code, done.out, done.err.decode()) == (code, b"", f"uvm: {said}\n")
    assert (await uvm("template", "show", name)).code == 3
