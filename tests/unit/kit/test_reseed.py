"""A program that lets itself be told to reseed, told by the hook that it wrote, without a VM."""

import random
import ssl
import subprocess  # noqa: TID251 (a program of another machine is played, which has nothing of ours but this file)
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from utilityvm.kit import reseed

FIRST, SECOND = 0.6394267984578837, 0.025010755222666936
"""What the seed 42 gives."""

FIRST_BITS = random.Random(42).getrandbits(64)  # noqa: S311 (no secret)

PROGRAM = f"""
import os, random, sys
sys.path.insert(0, {str(Path(reseed.__file__).parent)!r})
import reseed
random.seed(42)
reseed.install(lambda: os.write(1, b"told\\n"), hooks=sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    print(random.random(), flush=True)
"""


@pytest.fixture
def program(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    hooks, temporary = tmp_path / "hooks", tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-c", PROGRAM, str(hooks)]
    with subprocess.Popen(command, env={"TMPDIR": str(temporary)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def number(process: subprocess.Popen[str]) -> float:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def test_the_hook_comes_back_when_the_program_has_reseeded_and_no_sooner(program: subprocess.Popen[str], tmp_path: Path) -> None:
    assert number(program) == FIRST
    (hook,) = (tmp_path / "hooks").iterdir()
    assert subprocess.run([hook], check=False, timeout=10).returncode == 0
    assert program.stdout is not None
    assert program.stdout.readline() == "told\n"
    assert number(program) != SECOND


def test_the_hook_goes_with_its_program(program: subprocess.Popen[str], tmp_path: Path) -> None:
    program.communicate()
    assert [list(path.iterdir()) for path in tmp_path.iterdir()] == [[], []]


def test_the_hook_of_a_program_that_was_killed_tells_nobody_who_has_its_number_now(program: subprocess.Popen[str], tmp_path: Path) -> None:
    (hook,) = (tmp_path / "hooks").iterdir()
    program.kill()
    program.wait()
    with subprocess.Popen(["/bin/sleep", "60"]) as other:
        hook.write_text(hook.read_text().replace(str(program.pid), str(other.pid)))
        assert subprocess.run([hook], check=False, timeout=10).returncode == 0
        assert other.poll() is None
        other.kill()


class Seeded(ModuleType):
    """In place of a module that is not here: what it was seeded with."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.seeds = list[int]()

    def seed(self, number: int) -> None:
        self.seeds.append(number)


def test_generators_that_are_loaded_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_generate_time_safe", "_node", "_last_timestamp"):
        monkeypatch.setattr(uuid, name, object())
    numpy, added = Seeded("numpy.random"), list[bytes]()
    monkeypatch.setitem(sys.modules, "numpy.random", numpy)
    monkeypatch.setattr(ssl, "RAND_add", lambda data, _entropy: added.append(data))
    for _ in range(2):
        random.seed(42)
        reseed.reseed()
        assert random.getrandbits(64) != FIRST_BITS
        assert uuid.uuid1() != uuid.uuid1()
    assert len(set(numpy.seeds)) == len(set(added)) == 2
    assert all(0 <= seed < 1 << 32 for seed in numpy.seeds), "numpy takes no other"


def test_generators_that_are_not_loaded_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("uuid", "ssl", "numpy.random"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    reseed.reseed()
    assert not {"uuid", "ssl", "numpy.random"} & set(sys.modules)
