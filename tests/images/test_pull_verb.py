"""`uvm pull` on a terminal and elsewhere."""

import fcntl
import os
import pty
import re
import struct
import subprocess  # noqa: TID251 (a program on a terminal of ours)
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest

from tests.images.conftest import BIG, SMALL
from tests.images.registry import SECONDS, Registry
from utilityvm.cli.main import main
from utilityvm.images.store import ImageStore
from utilityvm.kit.errors import EXIT_CODES, Kind
from utilityvm.store.layout import Layout


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    own = Layout(tmp_path / "state", tmp_path / "cache", tmp_path / "boot")
    monkeypatch.setattr(Layout, "of_user", lambda: own)
    return own


def test_it_prints_name_and_digest_and_the_image_is_there(hub: Registry, layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"{hub.address}/small:1"
    assert main(["pull", "--tls-verify=false", name]) == 0
    said = capsys.readouterr()
    assert said.out == f"{name} {SMALL.digest}\n"
    assert [line.partition(":")[0] for line in said.err.splitlines()] == ["layer 1/2", "layer 2/2"]
    assert ImageStore.of_user().get(name).layers[0].parent == layout.images / "layers"
    assert main(["pull", "-q", "--tls-verify=false", name]) == 0
    assert capsys.readouterr() == (f"{name} {SMALL.digest}\n", "")


@pytest.mark.usefixtures("layout")
@pytest.mark.parametrize(
    ("words", "kind", "hint"),
    [
        (["small:2", "--tls-verify=false"], Kind.NOT_FOUND, "look at the name and the tag"),
        (["small:1"], Kind.HOST, "--tls-verify=false"),
        (["small:1", "--tls-verify=false", "--platform=linux/arm64"], Kind.NOT_FOUND, ""),
        (["small:1", "--tls-verify=false", "--timeout=0.001"], Kind.DEADLINE_EXCEEDED, "goes on where it was"),
    ],
)
def test_what_is_wrong_ends_with_the_code_of_its_kind(
    hub: Registry, words: list[str], kind: Kind, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pull", f"{hub.address}/{words[0]}", *words[1:]]) == EXIT_CODES[kind]
    assert hint in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="root has its images in one place, and hides it for this test")
def test_bars_are_drawn_on_a_terminal(hub: Registry, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    script = f'mount --bind {tmp_path / "state"} /var/lib/utilityvm; exec "$0" -m utilityvm pull --tls-verify=false "$1"'
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, sys.executable, f"{hub.address}/big:1"]
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs) as child:
        os.close(theirs)
        said = b""
        with suppress(OSError):  # the terminal's end
            while data := os.read(ours, 65536):
                said += data
        assert child.wait(SECONDS) == 0
    os.close(ours)
    text = said.decode()
    assert re.search(r"Copying blob [0-9a-f]{12}.*\[=*>?-*\].* / ", text)
    assert re.search(r"\r\x1b\[Klayer 4/4: 100 % of 2 MiB\r\x1b\[K", text)
    assert text.endswith(f"{hub.address}/big:1 {BIG.digest}\r\n")
