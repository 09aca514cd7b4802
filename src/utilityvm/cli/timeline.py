"""`--timeline`: where the time of a boot went, from its spans."""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from io import FileIO
from typing import Final

from utilityvm.kit.errors import HostError
from utilityvm.kit.trace import Recorder, Span, listen

ROWS: Final = {
    "host.probe": "probe",
    "vm.plan": "plan",
    "machine.create": "create",
    "machine.start": "QEMU exec",
    "image.get": "image",
    "image.pull": "pull",
    "template.make": "template made",
    "template.clone": "clone",
    "boot.kernel": "kernel",
    "boot.init": "init",
    "boot.agent": "agent",
    "bridge.negotiate": "negotiated",
    "vm.save": "saved",
    "container.create": "container created",
    "container.start": "first process started",
    "process.start": "first process started",
    "process.run": "first process ended",
    "vm.close": "close",
}
"""What is shown of a run and how it is called there; of several spans of a name the first, and the last of those in `_LAST`."""

_LAST: Final = frozenset({"vm.close"})  # a VM that becomes a template is closed too

_WIDTH: Final = 50  # characters of the longest bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the flags of a verb that boots."""
    parser.add_argument("--timeline", action="store_true", help="say on standard error, at the end, where the time went")
    parser.add_argument("--timeline-json", metavar="FILE", help="write every measured span to FILE, as JSON")


@contextmanager
def told(args: argparse.Namespace) -> Iterator[None]:
    """Tell of the spans of the body when it has ended, however it ended, as far as `args` ask for it.

    Raises:
        HostError: the file cannot be made, before the body; or not be written, after a body that has not failed.
    """
    with _opened(args.timeline_json) as file:
        recorder, begin = Recorder(), time.perf_counter_ns()
        stop = listen(recorder) if args.timeline or file else lambda: None
        failed = True
        try:
            yield
            failed = False
        finally:
            stop()
            if args.timeline:
                print(waterfall(recorder.spans, begin), file=sys.stderr)
            if file:
                _write(file, as_json(recorder.spans, begin), quietly=failed)


def waterfall(spans: Sequence[Span], begin: int) -> str:
    """Draw the first spans of each kind that is shown; `begin` is the moment 0."""
    firsts: dict[str, Span] = {}
    for span in sorted(spans, key=lambda span: span.start):
        if span.name in ROWS and (span.name not in firsts or span.name in _LAST):
            firsts[span.name] = span
    if not firsts:
        return "timeline: nothing was begun"
    whole = max(span.end for span in firsts.values()) - begin or 1
    label = max(map(len, ROWS.values()))
    lines = [f"timeline of {whole / 1e6:.1f} ms", f"{'':{label}}   at ms  took ms"]
    shown = sorted(firsts.values(), key=lambda span: span.start)
    lines += [_row(ROWS[span.name].ljust(label), span, begin, whole) for span in shown]
    return "\n".join([*lines, *_notes(firsts)])


def _row(label: str, span: Span, begin: int, whole: int) -> str:
    first = (span.start - begin) * _WIDTH // whole
    last = max(first + 1, -((begin - span.end) * _WIDTH // whole))
    bar = " " * first + "=" * (last - first) + (f" {span.error}" if span.error else "")
    return f"{label} {(span.start - begin) / 1e6:7.1f}  {(span.end - span.start) / 1e6:7.1f}  {bar}"


def _notes(firsts: dict[str, Span]) -> list[str]:
    if "boot.kernel" in firsts:
        within = firsts["boot.kernel"].fields["within"]
        return [f"kernel, init and agent are by the guest's clock, to within {int(within) / 1000:.1f} ms"]
    if "template.clone" in firsts and not firsts["template.clone"].error:
        return ["there is no kernel, init and agent: the VM goes on from the template of its boot, which --no-template does without"]
    return ["kernel, init and agent are not shown: the guest has not told of its boot"] if "machine.start" in firsts else []


def as_json(spans: Sequence[Span], begin: int) -> str:
    """Return all spans in the order of their beginnings; times are whole microseconds since `begin`."""
    return json.dumps(
        [
            {"name": span.name, "start_us": (span.start - begin) // 1000, "us": span.us, **({"error": span.error} if span.error else {})}
            | {"fields": dict(span.fields)}
            for span in sorted(spans, key=lambda span: span.start)
        ],
        indent=1,
    )


def _opened(path: str | None) -> AbstractContextManager[FileIO | None]:
    if path is None:
        return nullcontext()
    try:
        return FileIO(path, "w")  # which buffers nothing that could fail later
    except OSError as error:
        raise _unwritten(path, error) from error


def _write(file: FileIO, text: str, *, quietly: bool) -> None:
    rest = memoryview(f"{text}\n".encode())
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        if not quietly:  # why the run failed says more
            raise _unwritten(file.name, error) from error


def _unwritten(path: object, error: OSError) -> HostError:
    return HostError(f"--timeline-json: {path} cannot be written: {error.strerror}")
