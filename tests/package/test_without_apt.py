"""An installed `uvm` makes boot files where there is no apt and no dpkg: from a real mirror, in a root that has Python and gpgv."""

import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.package.conftest import Installed
from utilityvm.boot import pins
from utilityvm.boot.files import load
from utilityvm.boot.mirror import Mirror
from utilityvm.kit.errors import HostError, NotFound
from utilityvm.kit.proc import run_tool

pytestmark = pytest.mark.vm

HIDDEN = ("bin", "sbin", "local/bin", "local/sbin", "lib/apt", "lib/dpkg", "share/keyrings")
"""Folders of /usr that are empty in the root."""

ROOT_SCRIPT = """
set -eu
root=$1; shift
mount -t tmpfs tmpfs "$root"
cd "$root"
mkdir -p usr etc dev tmp
for name in bin sbin lib lib64; do if [ -L "/$name" ]; then cp -P "/$name" .; else mkdir "$name"; mount --bind "/$name" "$name"; fi; done
mount --rbind /usr usr
mount --rbind /dev dev
for name in $HIDDEN; do [ ! -d "usr/$name" ] || mount -t tmpfs tmpfs "usr/$name"; done
for program in $PROGRAMS; do cp -L "$program" "usr/bin/"; done
for path in /etc/ssl /etc/resolv.conf /etc/hosts /etc/nsswitch.conf $KEPT; do
    [ -e "$path" ] || continue
    if [ -d "$path" ]; then mkdir -p ".$path"; else mkdir -p ".${path%/*}"; : >".$path"; fi
    mount --bind "$path" ".$path"
done
exec chroot "$root" "$@"
"""

Run = Callable[..., str]


def mirror() -> str:
    """The mirror that this host's apt is set up for, or that the environment names."""
    if named := os.environ.get("UVM_DEBIAN_MIRROR"):
        return named.split()[0]
    try:
        rows = run_tool(
            ["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages", "Origin: Debian"], within=30
        )
    except NotFound:
        pytest.skip("there is no apt to read a mirror's address from; UVM_DEBIAN_MIRROR names none")
    found = [uri for codename, uri in (row.split(" ", 1) for row in rows.splitlines()) if "-" not in codename and uri.startswith("http")]
    if not found:
        pytest.skip("this host's apt uses no mirror of Debian over HTTP; UVM_DEBIAN_MIRROR names none")
    return found[0]


@pytest.fixture
def without_apt(installed: Installed, tmp_path: Path) -> Run:
    """Run a command in a root that has the installed package and little else, and return what it said."""
    root = tmp_path / "root"
    root.mkdir()
    if Path(sys.base_prefix) != Path("/usr"):
        pytest.skip("the root is made around the system's Python")
    kept = [installed.python.parents[1], sysconfig.get_path("purelib"), tmp_path]
    programs = [Path(sys.executable).resolve(), shutil.which("gpgv") or pytest.skip("gpgv is not there: make setup")]
    env = {"HIDDEN": " ".join(HIDDEN), "KEPT": " ".join(map(str, kept)), "PROGRAMS": " ".join(map(str, programs))}
    unshare = ["unshare", "--mount", "--propagation", "private", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--"]
    try:
        run_tool([*unshare, "true"], within=30)
    except HostError as error:
        pytest.skip(f"no root can be made here: {error.message}")

    def run(*words: str | Path) -> str:
        return run_tool([*unshare, "sh", "-c", ROOT_SCRIPT, "sh", root, *words], within=600, env=env)

    return run


def test_boot_files_are_built_from_a_mirror_in_a_root_without_apt_and_boot(installed: Installed, without_apt: Run, tmp_path: Path) -> None:
    tools = "import shutil; print([tool for tool in ('apt-get', 'apt-cache', 'dpkg', 'dpkg-deb', 'go', 'gpgv') if shutil.which(tool)])"
    assert without_apt(installed.python, "-c", tools) == "['gpgv']\n"
    boot = tmp_path / "boot"
    without_apt(installed.uvm, "boot-files", "build", "--mirror", mirror(), "--out", boot)

    built = load(boot, digests=True)
    pinned = {(pin.name, pin.version, pin.sha256) for pin in pins.load().packages}
    assert {(package.name, package.version, package.sha256) for package in built.manifest.packages} <= pinned
    said = run_tool(
        [installed.uvm, "boot", "--boot-files-path", boot, "--memory", "256", "--", "sh", "-c", "uname -r; crun --version"], within=120
    )
    assert said.splitlines()[0] == built.manifest.kernel.release
    assert "crun version" in said


def test_each_pinned_package_is_offered_the_source_of_a_kernel_too(tmp_path: Path) -> None:
    pinned = pins.load()
    archive = Mirror([mirror()], tmp_path, pinned)
    found = archive.find([pin.name for pin in pinned.packages])
    assert [(package.version, package.sha256) for package in found] == [(pin.version, pin.sha256) for pin in pinned.packages]
    assert "linux-source-6.1" in archive.dependencies("linux-source")


def test_without_a_mirror_it_says_to_name_one(
    installed: Installed, without_apt: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UVM_DEBIAN_MIRROR", raising=False)
    with pytest.raises(
        HostError, match="ended with 6: uvm: boot files are made from Debian packages, and this host has no apt-get"
    ) as caught:
        without_apt(installed.uvm, "boot-files", "build", "--out", tmp_path / "boot")
    assert "--mirror URL, or UVM_DEBIAN_MIRROR=URL" in caught.value.message
