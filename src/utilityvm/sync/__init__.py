"""Utility VMs without await: the names of `utilityvm`, for scripts, threads and the interactive shell.

    with utilityvm.sync.create_lcow() as vm:
        vm.start()
        process = vm.create_process(["uname", "-r"])
        print(process.stdout.read(), process.wait())

All VMs of a process run in one event loop, in a thread of its own; any thread may call. Ctrl-C ends the call that waits. A VM that
nobody closed is closed when the process ends.
"""

from inspect import iscoroutinefunction

import utilityvm
from utilityvm.containers.container import Container as _Container
from utilityvm.devices.layers import Layers as _Layers
from utilityvm.devices.network import Network as _Network
from utilityvm.devices.pipes import Pipes as _Pipes
from utilityvm.devices.plan9 import Plan9 as _Plan9
from utilityvm.devices.scsi import Scsi as _Scsi
from utilityvm.devices.vpci import VPci as _VPci
from utilityvm.devices.vpmem import VPMem as _VPMem
from utilityvm.devices.vsmb import Vsmb as _Vsmb
from utilityvm.guest.process import Process as _Process
from utilityvm.guest.transport import GuestStream as _GuestStream
from utilityvm.guest.transport import Listener as _Listener
from utilityvm.network.tap import TapUplink as _TapUplink
from utilityvm.network.user import UserUplink as _UserUplink
from utilityvm.sandbox.files import Files as _Files
from utilityvm.sandbox.sandbox import Sandbox as _Sandbox
from utilityvm.sync.handler import with_handler as _with_handler
from utilityvm.sync.twin import synchronous as _synchronous
from utilityvm.sync.twin import twin as _twin
from utilityvm.templates.pool import Pool as _Pool
from utilityvm.templates.template import Template as _Template
from utilityvm.vm.fork import Forked as _Forked
from utilityvm.vm.uplinks import Uplinks as _Uplinks
from utilityvm.vm.uvm import UtilityVM as _UtilityVM

GuestStream = _twin(_GuestStream)
Listener = _twin(_Listener)
Process = _twin(_Process)
Scsi = _twin(_Scsi)
VPMem = _twin(_VPMem)
Layers = _twin(_Layers)
Plan9 = _twin(_Plan9)
Vsmb = _twin(_Vsmb)
VPci = _twin(_VPci)
Pipes = _twin(_Pipes)
Container = _twin(_Container)
Network = _twin(_Network)
TapUplink = _twin(_TapUplink)
UserUplink = _twin(_UserUplink)
Uplinks = _twin(_Uplinks)
UtilityVM = _twin(_UtilityVM)
Forked = _twin(_Forked)
Files = _twin(_Files)
Template = _twin(_Template)
Pool = _twin(_Pool, called=True)
Sandbox = _twin(_Sandbox, called=True)

for _name in utilityvm.__all__:
    if _name not in globals():
        _value = getattr(utilityvm, _name)
        globals()[_name] = _synchronous(_with_handler(_value)) if iscoroutinefunction(_value) else _value

_OURS = (
    "GuestStream",
    "Listener",
    "Scsi",
    "VPMem",
    "Layers",
    "Plan9",
    "Vsmb",
    "VPci",
    "Pipes",
    "Network",
    "TapUplink",
    "UserUplink",
    "Uplinks",
    "Files",
)
__all__ = [*utilityvm.__all__, *_OURS]  # noqa: PLE0604 (the same names)
