"""Real virtual machines: the boot files, a machine shared by a module's tests, and a guard that nothing is left behind."""

import gc
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from utilityvm import UtilityVM, UtilityVMError, create_lcow, default_options_lcow
from utilityvm.boot.files import BootFiles, load
from utilityvm.store.layout import Layout
from utilityvm.vm import compose

from .networks import two_hosts

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.vm)
        if os.geteuid() != 0 and (what := item.get_closest_marker("root")):
            item.add_marker(pytest.mark.skip(reason=f"only root can {what.args[0]}"))


@pytest.fixture(scope="session")
def boot_files() -> BootFiles:
    """The boot files of this user."""
    try:
        return load(Layout.of_user().boot_files)
    except UtilityVMError as error:
        pytest.fail(f"tests of virtual machines need the boot files (make setup): {error.message}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def vm(boot_files: BootFiles) -> AsyncIterator[UtilityVM]:
    """A running VM for all tests of a module, none of which ends it. They run in the module's event loop."""
    options = default_options_lcow(boot_files_path=str(boot_files.folder), memory_size_in_mb=256, processor_count=1)
    async with await create_lcow(options) as machine:
        await machine.start()
        yield machine
        assert machine.state == "running", f"a test has ended the VM that others need: {machine.exit_error}"


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def _module_loop() -> None:
    """Begin the module's event loop, which stays, before descriptors are counted: whichever of its tests are run, and in which order."""


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[str, str]]:
    """The names of a host of the module's own, and of the machine that stands for the rest of the world."""
    with two_hosts() as names:
        yield names


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test that leaves a process, an open descriptor, or a file in the folder for temporary ones.

    What containers have given back leaves a VM while its loop runs, and so a module's VM is let do that first.
    """
    temporary = tmp_path / "temporary"
    temporary.mkdir(mode=0o700)
    for name in ("TMPDIR", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(temporary))
    children, descriptors = _children(), _descriptors()
    yield
    if isinstance(shared := request.node.funcargs.get("vm"), UtilityVM):
        shared._end.exit.get_loop().run_until_complete(shared._containers.settled())
    compose._MEMORIES.close()  # what is kept of templates, for the next clones
    gc.collect()
    assert _children() <= children, "the test left a process"
    left = _descriptors()
    assert left.items() <= descriptors.items(), f"the test left open: {dict(left.items() - descriptors.items())}"
    assert list(temporary.iterdir()) == [], "the test left a file"


def _children() -> set[str]:
    return {pid for listing in Path("/proc/self/task").glob("*/children") for pid in listing.read_text().split()}


def _descriptors() -> dict[str, str]:
    """Return what every open descriptor is, but for the one that lists them."""
    found = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 (names are what is compared)
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115 (not a path)
        except FileNotFoundError:
            continue
    return found
