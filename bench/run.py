"""Measures what SPECIFICATION.md promises: our side and the raw side of each promise in the same run, one after the other in turn.

Prints a table and writes the figures as JSON. Exit status: 0 when every bound is met, 1 when one is not, 2 when nothing could be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from timeit import repeat
from typing import TYPE_CHECKING, Self

import planning
from layering import Layering
from nets import inside, network
from raw.initrd import CannotMeasure, build

from utilityvm.store.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

QEMU = "qemu-system-x86_64"
MEMORY_MIB = 256
CPUS = 1
ROUNDS = 4  # of processes in each run: the sides take turns often, because a shared machine changes its pace within seconds
PROCESSES = 50  # of one round of round trips
WARM_UP = 20
STDIO_BYTES = 48 << 20
NETWORK_BYTES = 64 << 20
VERSION_STARTS = 10  # of one round
IDLE_VMS = 4
ATTACHMENTS = 4  # of one round
ATTACH_ROUNDS = 6
ACQUIRED = 100  # VMs of a pool in one run
CONTAINERS = 4  # of one round
CLONES = 4  # of one round
MANY_CLONES = 100  # alive together
PLANS = 1000  # of each sort in one round

HERE = Path(__file__).resolve().parent
PYTHON = sys.executable
UVM = str(Path(sys.executable).with_name("uvm"))


@dataclass(slots=True)
class Result:
    """A promise and its figures: `raw` and `ours` are medians, `runs_*` what they are the medians of.

    Without a raw side the bound is on `ours` itself.
    """

    name: str
    unit: str
    bound: float
    higher_is_better: bool = False
    runs_raw: list[float] = field(default_factory=list)
    runs_ours: list[float] = field(default_factory=list)

    @property
    def raw(self) -> float | None:
        return median(self.runs_raw) if self.runs_raw else None

    @property
    def ours(self) -> float:
        return median(self.runs_ours)

    @property
    def ratio(self) -> float:
        return self.ours / (self.raw or 1)

    @property
    def met(self) -> bool:
        return self.ratio >= self.bound if self.higher_is_better else self.ratio <= self.bound

    def record(self) -> dict[str, object]:
        return {"ratio": self.ratio, "met": self.met, "raw": self.raw, "ours": self.ours, **asdict(self)}

    def row(self) -> tuple[str, ...]:
        bound = f"{'>=' if self.higher_is_better else '<='} {self.bound:g}"
        raw = "" if self.raw is None else f"{self.raw:.4g}"
        return (self.name, raw, f"{self.ours:.4g}", self.unit, f"{self.ratio:.2f}", bound, "met" if self.met else "NOT met")


class Session:
    """One side's program with a running VM: it says `ready`, then answers one command a line until its stdin ends."""

    def __init__(self, argv: list[str]) -> None:
        self._name = Path(argv[1]).name
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin
        assert self._process.stdout
        self._commands, self._answers = self._process.stdin, self._process.stdout
        if self._answers.readline() != "ready\n":
            self.close()
            raise CannotMeasure(f"{self._name} ended before its VM was ready, with exit status {self._process.returncode}")

    def ask(self, command: str, number: int) -> list[float]:
        print(command, number, file=self._commands, flush=True)
        answer = self._answers.readline()
        if not answer:
            raise CannotMeasure(f"{self._name} died at: {command} {number}")
        return [float(seconds) for seconds in json.loads(answer)]

    def close(self) -> None:
        self._commands.close()
        self._process.wait()
        self._answers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Kernels:
    """Boot files with each of the two kernels, and how to start the raw side with our own."""

    distribution: Path
    own: Path
    raw_argv: list[str]


@dataclass(frozen=True, slots=True)
class Bench:
    """How to start each side, and how often to measure."""

    ours_argv: list[str]
    raw_argv: list[str]
    runs: int
    make_kernels: Callable[[], Kernels]
    make_plugging: Callable[[], tuple[list[str], list[str]]]
    make_networking: Callable[[str], tuple[list[str], list[str]]]

    def boot(self) -> list[Result]:
        """The raw clock stops at the process's exit; ours goes on until the command has cleaned up and ended."""
        result = Result("cold_boot", "s", 1.35)
        for _ in range(self.runs):
            result.runs_raw.append(seconds_of_raw(self.raw_argv))
            result.runs_ours.append(seconds_of(boot_command()))
        return [result]

    def run(self) -> list[Result]:
        """A container of an image that is here already, over a process in a VM."""
        result = Result("run", "s", 1.35)
        command = run_command("--no-template")
        seconds_of(command)  # which imports the image if it is new
        for _ in range(self.runs):
            result.runs_raw.append(seconds_of(boot_command()))
            result.runs_ours.append(seconds_of(command))
        return [result]

    def run_again(self) -> list[Result]:
        """A container in a VM that goes on from the template of its boot, which is there, over the same in one that boots."""
        result = Result("run_again", "s", 0.45)
        command = [UVM, "run", "busybox", "true"]  # as anybody says it: with a VM of the default size
        seconds_of(command)
        for _ in range(self.runs):
            result.runs_raw.append(seconds_of([UVM, "run", "--no-template", "busybox", "true"]))
            result.runs_ours.append(seconds_of(command))
        return [result]

    def containers(self) -> list[Result]:
        """Both sides are in one VM, in which another container runs."""
        result = Result("second_container", "ms", 1.3)
        with Session([PYTHON, str(HERE / "containers.py"), str(MEMORY_MIB), str(CPUS)]) as session:
            sides = [("raw", result.runs_raw), ("ours", result.runs_ours)]
            for command, _ in sides:
                session.ask(command, 2)
            for _ in range(self.runs * ROUNDS):
                for command, runs in sides:
                    runs.append(1e3 * median(session.ask(command, CONTAINERS)))
                sides.reverse()
        return [result]

    def kernels(self) -> list[Result]:
        """Our side with each of the two kernels, and the raw side with our own kernel too."""
        kernels = Result("own_kernel", "s", 0.5)
        boot = Result("cold_boot_own_kernel", "s", 1.35)
        sides = self.make_kernels()
        for _ in range(self.runs):
            boot.runs_raw.append(seconds_of_raw(sides.raw_argv))
            kernels.runs_raw.append(seconds_of(boot_command("--boot-files-path", str(sides.distribution))))
            kernels.runs_ours.append(seconds_of(boot_command("--boot-files-path", str(sides.own))))
        boot.runs_ours = kernels.runs_ours
        return [kernels, boot]

    def processes(self) -> list[Result]:
        """Both VMs are alive at the same time and one of them is idle; an idle raw guest sits in a read."""
        trips = Result("round_trip", "ms", 1.5)
        out = Result("throughput_out", "MB/s", 0.9, higher_is_better=True)
        into = Result("throughput_in", "MB/s", 0.9, higher_is_better=True)
        with Session(self.raw_argv) as raw, Session(self.ours_argv) as ours:
            sides = [(raw, trips.runs_raw, out.runs_raw, into.runs_raw), (ours, trips.runs_ours, out.runs_ours, into.runs_ours)]
            for session, *_ in sides:
                session.ask("round_trips", WARM_UP)
            for _ in range(self.runs * ROUNDS):
                for session, trip_runs, _, _ in sides:
                    trip_runs.append(1e3 * median(session.ask("round_trips", PROCESSES)))
                for session, _, out_runs, _ in sides:
                    out_runs.append(STDIO_BYTES / 1e6 / median(session.ask("out", STDIO_BYTES)))
                for session, _, _, in_runs in sides:
                    in_runs.append(STDIO_BYTES / 1e6 / median(session.ask("in", STDIO_BYTES)))
                sides.reverse()  # raw, ours, ours, raw: the pace of a shared machine drifts, and nobody shall gain by going second
        return [trips, out, into]

    def memory(self) -> list[Result]:
        result = Result("idle_memory", "MB", 1)
        with Session(self.ours_argv) as ours:
            result.runs_ours = ours.ask("idle_memory", IDLE_VMS)
        return [result]

    def attach(self) -> list[Result]:
        """Plugging a layer in and mounting it. The first of each is not counted: ours loads drivers for it, the raw guest had them."""
        results = {"scsi": Result("attach_scsi", "ms", 1.5), "pmem": Result("attach_pmem", "ms", 1.5)}
        return plugged(results, *self.make_plugging())

    def network(self) -> list[Result]:
        """How much goes by a tap and by passt, each side on its own, and how long an adapter takes; the guests run the same program."""
        by_tap = Result("tap_out", "MB/s", 0.9, higher_is_better=True), Result("tap_in", "MB/s", 0.9, higher_is_better=True)
        by_passt = Result("user_out", "MB/s", 0.9, higher_is_better=True), Result("user_in", "MB/s", 0.9, higher_is_better=True)
        for kind, (out, into) in (("tap", by_tap), ("user", by_passt)):
            with network(f"raw-{kind}") as first, network(f"ours-{kind}") as second:
                raw_argv, ours_argv = self.make_networking(kind)
                with Session(inside(first, *raw_argv)) as raw, Session(inside(second, *ours_argv)) as ours:
                    sides = [(raw, out.runs_raw, into.runs_raw), (ours, out.runs_ours, into.runs_ours)]
                    for session, *_ in sides:
                        session.ask("in", NETWORK_BYTES)
                    for _ in range(self.runs * ROUNDS):
                        for session, out_runs, in_runs in sides:
                            out_runs.append(NETWORK_BYTES / 1e6 / median(session.ask("out", NETWORK_BYTES)))
                            in_runs.append(NETWORK_BYTES / 1e6 / median(session.ask("in", NETWORK_BYTES)))
                        sides.reverse()
        nic = plugged({"nic": Result("attach_nic", "ms", 1.5)}, *self.make_networking("nic"))
        return [*by_tap, *by_passt, *nic]

    def layers(self) -> list[Result]:
        """The same archive, plain and packed, all of it in memory: what a disk takes is the same for both, and differs from run to run."""
        plain, packed = Result("layer", "s", 1.5), Result("layer_gzip", "s", 1.5)
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            layering = Layering(Path(folder))
            layering.make()
            for _ in range(self.runs):
                for result, archive in ((plain, layering.plain), (packed, layering.packed)):
                    result.runs_raw.append(layering.raw(archive))
                    result.runs_ours.append(layering.ours(archive))
        return [plain, packed]

    def clones(self) -> list[Result]:
        """The library's call on our side; over our own boot it is the time of the whole command on the other."""
        boot, clone, first = Result("clone_over_boot", "ms", 0.2), Result("clone", "ms", 1.5), Result("first_clone", "ms", 1.5)
        raw_argv = [PYTHON, str(HERE / "raw" / "clone.py"), *self.raw_argv[2:]]
        with Session(raw_argv) as raw, Session([PYTHON, str(HERE / "cloning.py"), str(MEMORY_MIB), str(CPUS)]) as ours:
            sides = [(raw, "clone", clone.runs_raw), (ours, "clone", clone.runs_ours), (ours, "first", first.runs_ours)]
            for session, command, _ in sides:
                session.ask(command, 1)
            for _ in range(self.runs):
                for session, command, runs in sides:
                    runs.append(1e3 * median(session.ask(command, CLONES)))
                boot.runs_raw.append(1e3 * seconds_of(boot_command()))
                sides.reverse()
        first.runs_raw, boot.runs_ours = clone.runs_raw, clone.runs_ours
        return [boot, clone, first]

    def many_clones(self) -> list[Result]:
        """Many clones, alive together, over as many raw restores one after another: ours may use all processors."""
        result = Result("many_clones", "s", 1.2)
        raw_argv = [PYTHON, str(HERE / "raw" / "clone.py"), *self.raw_argv[2:]]
        with Session(raw_argv) as raw, Session([PYTHON, str(HERE / "cloning.py"), str(MEMORY_MIB), str(CPUS)]) as ours:
            raw.ask("clone", 1)
            ours.ask("clone", 1)
            result.runs_raw.append(sum(raw.ask("clone", MANY_CLONES)))
            result.runs_ours += ours.ask("many", MANY_CLONES)
        return [result]

    def fork(self) -> list[Result]:
        """How long a VM, or a sandbox, with 50 MiB of random bytes in its memory stands still when it is forked: first, and once more."""
        forks = {
            "plain": (Result("fork_plain", "ms", 100), Result("fork_plain_again", "ms", 100)),
            "forkable": (Result("fork_forkable", "ms", 100), Result("fork_forkable_again", "ms", 100)),
            "sandbox": (Result("fork_sandbox", "ms", 1000), Result("fork_sandbox_again", "ms", 1000)),
            "forkable_sandbox": (Result("fork_forkable_sandbox", "ms", 100), Result("fork_forkable_sandbox_again", "ms", 100)),
        }
        for _ in range(self.runs):
            with Session([PYTHON, str(HERE / "forking.py"), str(MEMORY_MIB), str(CPUS)]) as ours:
                for kind, both in forks.items():
                    for result in both:
                        result.runs_ours += [1e3 * seconds for seconds in ours.ask(kind, 1)]
        return [result for both in forks.values() for result in both]

    def pool(self) -> list[Result]:
        """How long a pool takes to hand out a VM when all that are wanted are ready, in 99 of 100 times."""
        result = Result("pool_acquire", "ms", 5)
        with Session([PYTHON, str(HERE / "cloning.py"), str(MEMORY_MIB), str(CPUS)]) as ours:
            for _ in range(self.runs):
                result.runs_ours.append(1e3 * sorted(ours.ask("acquire", ACQUIRED))[ACQUIRED * 99 // 100 - 1])
        return [result]

    def version(self) -> list[Result]:
        version, importing = Result("version", "ms", 3), Result("import", "ms", 3)
        for _ in range(self.runs * VERSION_STARTS):
            raw = 1e3 * seconds_of([PYTHON, "-c", "pass"])
            for result, argv in ((version, [UVM, "--version"]), (importing, [PYTHON, "-c", "import utilityvm"])):
                result.runs_raw.append(raw)
                result.runs_ours.append(1e3 * seconds_of(argv))
        return [version, importing]

    def planning(self) -> list[Result]:
        """From options and facts to the document's text, in this process; nothing of the host is looked at."""
        results = [Result("plan_lcow", "ms", 1), Result("plan_wcow", "ms", 1), Result("plan_clone", "ms", 1)]
        for _ in range(self.runs):
            for result in results:
                plan = planning.PLANS[result.name]()
                result.runs_ours.append(1e3 * median(repeat(plan, number=1, repeat=PLANS)))
        return results


MEASUREMENTS: dict[str, Callable[[Bench], list[Result]]] = {
    "boot": Bench.boot,
    "run": Bench.run,
    "run_again": Bench.run_again,
    "containers": Bench.containers,
    "kernels": Bench.kernels,
    "processes": Bench.processes,
    "clones": Bench.clones,
    "many_clones": Bench.many_clones,
    "fork": Bench.fork,
    "pool": Bench.pool,
    "memory": Bench.memory,
    "version": Bench.version,
    "planning": Bench.planning,
    "attach": Bench.attach,
    "network": Bench.network,
    "layers": Bench.layers,
}


def plugged(results: dict[str, Result], raw_argv: list[str], ours_argv: list[str]) -> list[Result]:
    """Plug things in, of each kind in `results`, in turns on both sides. The first of each is not counted."""
    with Session(raw_argv) as raw, Session(ours_argv) as ours:
        for session in (raw, ours):
            for command in results:
                session.ask(command, 1)
        sides = [(raw, "runs_raw"), (ours, "runs_ours")]
        for _ in range(ATTACH_ROUNDS):
            for command, result in results.items():
                for session, runs in sides:
                    getattr(result, runs).append(1e3 * median(session.ask(command, ATTACHMENTS)))
            sides.reverse()
    return list(results.values())


def boot_command(*more: str) -> list[str]:
    return [UVM, "boot", "--memory", str(MEMORY_MIB), "--cpus", str(CPUS), *more, "--", "/bin/busybox", "true"]


def run_command(*more: str) -> list[str]:
    size = ("--memory-size-in-mb", str(MEMORY_MIB), "--processor-count", str(CPUS))
    return [UVM, "run", *size, *more, "busybox", "/bin/busybox", "true"]


def seconds_of_raw(argv: list[str]) -> float:
    start = perf_counter()
    with Session(argv):
        return perf_counter() - start


def seconds_of(argv: list[str]) -> float:
    start = perf_counter()
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return perf_counter() - start


def running_qemus() -> Iterator[tuple[int, list[str]]]:
    """Process id and argv of every QEMU on this machine; zombies have no argv."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            argv = os.fsdecode(file.read_bytes()).split("\0")[:-1]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if argv and Path(argv[0]).name.startswith("qemu-system"):
            yield int(file.parent.name), argv


def our_machine(ours_argv: list[str]) -> dict[str, str]:
    """What the raw side must have as well, read from the command line of our own QEMU."""
    with Session(ours_argv):
        running = list(running_qemus())
    if len(running) != 1:
        raise CannotMeasure(f"beside our VM's QEMU another was started: processes {[pid for pid, _ in running]}")
    _, argv = running[0]
    return {option: argv[argv.index(option) + 1] for option in ("-accel", "-cpu", "-smp")}


def make_images(folder: Path, number: int) -> None:
    """Layers that are all alike: an EROFS with a busybox in it, as large as persistent memory wants it."""
    if shutil.which("mkfs.erofs") is None:
        raise CannotMeasure("mkfs.erofs is missing: apt-get install erofs-utils")
    tree = folder / "tree"
    tree.mkdir(parents=True)
    shutil.copy(PYTHON, tree / "program")
    first = folder / "0.img"
    subprocess.run(["mkfs.erofs", first, tree], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.truncate(first, -(-first.stat().st_size // (2 << 20)) * (2 << 20))
    for other in range(1, number):
        shutil.copy(first, folder / f"{other}.img")
    folder.parent.chmod(0o755)


def measure(arguments: argparse.Namespace, scratch: Path) -> tuple[dict[str, object], list[Result]]:
    for pid, argv in running_qemus():
        raise CannotMeasure(f"{argv[0]} is running as process {pid}; it would falsify the figures: end it first")
    if shutil.which(QEMU) is None:
        raise CannotMeasure(f"{QEMU} is missing: apt-get install qemu-system-x86")
    boot_files = Layout.of_user().boot_files
    if not (boot_files / "initrd.img").exists():
        raise CannotMeasure(f"no boot files in {boot_files}: uvm boot-files build")
    ours = [PYTHON, str(HERE / "ours.py"), str(MEMORY_MIB), str(CPUS)]
    machine = our_machine(ours)

    def raw(folder: Path) -> list[str]:
        initrd = scratch / f"{folder.name}.initrd"
        initrd.write_bytes(build(folder / "initrd.img", scratch))
        flags = [word for option in machine.items() for word in option]
        return [PYTHON, str(HERE / "raw" / "driver.py"), str(folder / "vmlinux"), str(initrd), str(MEMORY_MIB), *flags]

    def kernels() -> Kernels:
        distribution, own = scratch / "distribution", scratch / "source"
        for folder in (distribution, own):
            subprocess.run([UVM, "boot-files", "build", "--kernel", folder.name, "--out", str(folder)], check=True, stdout=sys.stderr)
        return Kernels(distribution, own, raw(own))

    def plugging() -> tuple[list[str], list[str]]:
        images = scratch / "images"
        make_images(images, 1 + ATTACHMENTS * ATTACH_ROUNDS)
        initrd = scratch / "devices.initrd"
        initrd.write_bytes(build(boot_files / "initrd.img", scratch, "scsi", "pmem", "erofs"))
        flags = [word for option in machine.items() for word in option]
        argv = [PYTHON, str(HERE / "raw" / "attach.py"), str(boot_files / "vmlinux"), str(initrd), str(MEMORY_MIB), str(images), *flags]
        return argv, [*ours, str(images)]

    def networking(kind: str) -> tuple[list[str], list[str]]:
        if os.geteuid() != 0:
            raise CannotMeasure("only root can make networks to measure: run it as root")
        initrd = scratch / "network.initrd"
        initrd.write_bytes(build(boot_files / "initrd.img", scratch, "net"))
        flags = [word for option in machine.items() for word in option]
        argv = [PYTHON, str(HERE / "raw" / "network.py"), kind, str(boot_files / "vmlinux"), str(initrd), str(MEMORY_MIB), *flags]
        return argv, [PYTHON, str(HERE / "networking.py"), kind, str(scratch / "stream"), str(MEMORY_MIB), str(CPUS)]

    qemu = subprocess.run([QEMU, "--version"], check=True, capture_output=True, text=True).stdout.splitlines()[0]
    facts: dict[str, object] = {
        "host": platform.platform(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "qemu": qemu,
        "machine": machine,
    }
    chosen = [arguments.only] if arguments.only else list(MEASUREMENTS)
    bench = Bench(ours, raw(boot_files), arguments.runs, kernels, plugging, networking)
    results = [result for name in chosen for result in MEASUREMENTS[name](bench)]
    return facts, results


def print_table(results: list[Result]) -> None:
    rows = [("name", "raw", "ours", "unit", "ratio", "bound", ""), *(result.row() for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure our promises against raw QEMU.")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="rounds of each side (default: 5)")
    parser.add_argument("--only", choices=MEASUREMENTS, help="measure only this")
    parser.add_argument("--out", type=Path, default=Path("bench.json"), metavar="FILE", help="where the figures go (default: bench.json)")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            facts, results = measure(arguments, Path(scratch))
    except (CannotMeasure, subprocess.CalledProcessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    print_table(results)
    arguments.out.write_text(json.dumps({**facts, "results": [result.record() for result in results]}, indent=1) + "\n")
    return 0 if all(result.met for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
