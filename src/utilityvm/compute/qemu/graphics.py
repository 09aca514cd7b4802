"""The part of a document that is a screen and a keyboard, as QEMU's words. Pure."""

from collections.abc import Iterator

from utilityvm.kit.errors import Problem
from utilityvm.schema.devices import Devices
from utilityvm.schema.document import ComputeSystem


def screen_path(document: ComputeSystem) -> str:
    """Return the path of the socket that offers the screen, ``""`` for a machine without."""
    devices = document.virtual_machine.devices if document.virtual_machine else None
    options = devices.video_monitor.connection_options if devices and devices.video_monitor else None
    return options.named_pipe if options else ""


def screen_words(document: ComputeSystem) -> Iterator[str]:
    """Return what QEMU is told of the screen: VNC without an address, whose clients are handed to it one by one."""
    if screen_path(document):
        yield from ("-device", "VGA", "-vnc", "none")


def wrong_screen(devices: Devices, path: str) -> Iterator[Problem]:
    """Say what is wrong with the screen of `devices`, which are at `path`."""
    where, monitor = f"{path}.VideoMonitor.ConnectionOptions.NamedPipe", devices.video_monitor
    pipe = monitor.connection_options.named_pipe if monitor and monitor.connection_options else ""
    if monitor is not None and not pipe:
        missing = "missing: the screen is seen by VNC on a socket, whose path this is (the option graphics_pipe)"
        yield Problem(where, "unsupported", missing)
    elif pipe and not pipe.startswith("/"):
        yield Problem(where, "unsupported", f"{pipe!r}: on this host it is the absolute path of a socket")
    if devices.enhanced_mode_video is not None and monitor is None:
        yield Problem(f"{path}.EnhancedModeVideo", "unsupported", "is another way to see a VideoMonitor, and there is none")
