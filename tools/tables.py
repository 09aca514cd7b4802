"""Rewrite the marked tables of our documents: states from the tables in the code, figures from the committed bench run.

A marked block stands between ``<!-- NAME ARGUMENT -->`` and ``<!-- /NAME -->``; see `MAKERS` for the names.
Run from anywhere: ``.venv/bin/python tools/tables.py``. A test holds the documents to what this prints.
"""

import json
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
DOCUMENTS: Final = ("README.md", "ARCHITECTURE.md", "SPECIFICATION.md", "docs/measurements/shares.md", "docs/how-to/templates.md")
BENCH: Final = ROOT / "docs" / "measurements" / "bench.json"
"""A run of `make bench` that was committed; without one the figures are said to be not measured."""

SHARES: Final = ROOT / "docs" / "measurements" / "shares.json"
"""A run of `bench/shares.py` that was committed, or none yet."""

ALIVE: Final = ROOT / "docs" / "measurements" / "soak-clones-alive.json"
"""A run of the campaign of many clones that was committed."""

IDLE: Final[Mapping[str, str]] = {
    "median_working_set": "its QEMU, with its part of what clones share",
    "median_unique": "of that what is its own, and goes with it",
    "ours": "its part of the process that has all of them",
}
"""What an idle clone takes of the host's memory, by the names that the campaign gives it."""

PROMISES: Final[Mapping[str, tuple[str, str]]] = {
    "cold_boot": ("cold boot to the first process's exit", "≤ 1.35"),
    "own_kernel": ("the same with our own kernel, raw: our side with the distribution's", "≤ 0.5"),
    "cold_boot_own_kernel": ("the same with our own kernel on both sides", "≤ 1.35"),
    "run": ("`uvm run busybox true`, raw: `uvm boot -- true`", "≤ 1.35"),
    "run_again": ("the second `uvm run busybox true`, raw: one that boots", "≤ 0.45"),
    "second_container": ("a second container in a running VM, raw: `crun run` there", "≤ 1.3"),
    "clone_over_boot": ("a clone of a template to its first process's exit, raw: `uvm boot -- true`", "≤ 0.2"),
    "clone": ("the same, raw: restore and spawn", "≤ 1.5"),
    "first_clone": ("the same as the first of its process, which copies the template's memory", "≤ 1.5"),
    "many_clones": (
        "a hundred clones, all alive, to the end of a process in each, raw: one restore and spawn after another",
        "≤ 1.2",
    ),
    "round_trip": ("round trip of a process in a running VM", "≤ 1.5"),
    "throughput_out": ("throughput out of a process", "≥ 0.9"),
    "throughput_in": ("throughput into a process", "≥ 0.9"),
    "idle_memory": ("host memory of our side for one more idle VM in a process", "≤ 1"),
    "attach_scsi": ("a layer plugged in as a SCSI disk and mounted", "≤ 1.5"),
    "attach_pmem": ("the same as persistent memory", "≤ 1.5"),
    "attach_nic": ("a network adapter plugged in, with its address and its way to everything", "≤ 1.5"),
    "tap_out": ("throughput out of a guest by a tap, raw: QEMU on a tap in the same place", "≥ 0.9"),
    "tap_in": ("the same into a guest", "≥ 0.9"),
    "user_out": ("throughput out of a guest by passt and its filter, raw: QEMU on passt", "≥ 0.9"),
    "user_in": ("the same into a guest", "≥ 0.9"),
    "layer": ("a layer's archive of 300 MiB to an image, raw: `tar -x` and `mkfs.erofs`", "≤ 1.5"),
    "layer_gzip": ("the same, packed with gzip", "≤ 1.5"),
    "version": ("`uvm --version`, raw: `python -c pass`", "≤ 3"),
    "import": ("`import utilityvm`, raw: `python -c pass`", "≤ 3"),
    "pool_acquire": ("a pool hands out a clone, when all that it is to have are ready: the 99th percentile", "≤ 5"),
    "fork_plain": ("a VM of 256 MiB, 50 of them random bytes in a file, stands still when it is forked", "≤ 100"),
    "fork_plain_again": ("the same, the second time", "≤ 100"),
    "fork_forkable": ("a `forkable` VM", "≤ 100"),
    "fork_forkable_again": ("the same, the second time", "≤ 100"),
    "fork_sandbox": ("a sandbox", "≤ 1000"),
    "fork_sandbox_again": ("the same, the second time", "≤ 1000"),
    "fork_forkable_sandbox": ("a `forkable` sandbox", "≤ 100"),
    "fork_forkable_sandbox_again": ("the same, the second time", "≤ 100"),
    "plan_lcow": ("options and facts to a document: a Linux guest", "≤ 1"),
    "plan_wcow": ("the same: a Windows guest", "≤ 1"),
    "plan_clone": ("the same: a clone with 8 disks and 8 shared folders", "≤ 1"),
}
"""Rows of the bench, by the name that its results have: what they mean, and the bound on ours / raw."""

_DETAILS: Final = ("plan_", "attach_", "tap_", "user_", "layer", "own_kernel", "import", "clone", "first_", "many_", "pool_", "fork_")
"""Beginnings of the names of rows that the first page does without."""

_BLOCK: Final = re.compile(r"(<!-- (\w+)(?: (\S+))? -->\n).*?(<!-- /\2 -->)", re.DOTALL)


def states(module: str) -> str:
    """Return the table `LIFE` of a module: a row for each event, a column for each state, in the order of their definition."""
    life: Mapping[tuple[StrEnum, StrEnum], StrEnum] = import_module(module).LIFE
    (state, event), *_ = life
    places = list(type(state))
    rows = [[event.value, *(_cell(here, life.get((here, event))) for here in places)] for event in type(event)]
    return _table([f"`{module}`", *(here.value for here in places)], rows)


def bench(which: str) -> str:
    """Return the figures of the committed bench run; of `which` "vm" only those for the first page."""
    measured = {row["name"]: row for row in json.loads(BENCH.read_text())["results"]} if BENCH.exists() else {}
    shown = {name: said for name, said in PROMISES.items() if which != "vm" or name == "clone_over_boot" or not name.startswith(_DETAILS)}
    rows = [[text, *_figures(measured.get(name)), bound] for name, (text, bound) in shown.items()]
    return _table(["", "raw QEMU", "ours", "ours / raw", "bound"], rows)


def shares(_: str) -> str:
    """Return the figures of the committed run of shared folders: a row for each work, a column for each server, medians of its rounds."""
    if not SHARES.exists():
        return "Not measured yet on a quiet machine.\n"
    told = json.loads(SHARES.read_text())
    sides = told["seconds"]
    works = list(next(iter(sides.values())))
    rows = [[work, *(f"{median(side[work]):.3g} s" for side in sides.values())] for work in works]
    return _table([f"{told['files']} files, load {told['load_before']:.1f} before", *sides], rows)


def idle(_: str) -> str:
    """Return what an idle clone takes of the host's memory, by the committed run of the campaign of many clones."""
    told = json.loads(ALIVE.read_text())
    rows = [[text, f"{told[name] / 1e6:.3g} MB" if name in told else "not measured"] for name, text in IDLE.items()]
    return _table([f"one of {told['vms']} idle clones of 256 MiB", "memory"], rows)


MAKERS: Final[Mapping[str, Callable[[str], str]]] = {"states": states, "bench": bench, "shares": shares, "idle": idle}


def rewritten(text: str) -> str:
    """Return a document with its marked blocks made anew."""

    def block(found: re.Match[str]) -> str:
        return found[1] + MAKERS[found[2]](found[3] or "") + found[4]

    return _BLOCK.sub(block, text)


def _cell(here: StrEnum, there: StrEnum | None) -> str:
    if there is None:
        return "refused"
    return "stays" if there is here else f"→ {there.value}"


def _figures(row: Mapping[str, object] | None) -> list[str]:
    if row is None:
        return ["not measured"] * 3
    unit = row["unit"]
    raw = "" if row["raw"] is None else f"{_three(row['raw'])} {unit}"
    return [raw, f"{_three(row['ours'])} {unit}", f"{row['ratio']:.2f}" + ("" if row["met"] else " **not met**")]


def _three(value: object) -> str:
    """Return a figure with three digits, in full where it has more before its point."""
    assert isinstance(value, float)  # noqa: S101
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Rewrite the documents that are out of date."""
    for name in DOCUMENTS:
        path = ROOT / name
        before = path.read_text()
        after = rewritten(before)
        if before != after:
            path.write_text(after)
            print(f"{name}: rewritten")


if __name__ == "__main__":
    main()
