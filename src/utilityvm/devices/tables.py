"""All tables of one VM, made of its plan."""

from typing import NamedTuple

from utilityvm.devices.layers import Layers
from utilityvm.devices.network import Network
from utilityvm.devices.pipes import Pipes
from utilityvm.devices.plan9 import Plan9
from utilityvm.devices.ports import Owner
from utilityvm.devices.scsi import Scsi
from utilityvm.devices.vpci import VPci
from utilityvm.devices.vpmem import VPMem
from utilityvm.devices.vsmb import Vsmb
from utilityvm.plan.lcow import LcowPlan
from utilityvm.plan.wcow import WcowPlan
from utilityvm.store.devices import Devices


class Tables(NamedTuple):
    """One table a kind of device."""

    scsi: Scsi
    vpmem: VPMem
    layers: Layers
    plan9: Plan9
    vsmb: Vsmb
    vpci: VPci
    pipes: Pipes
    network: Network


def record(made: Tables) -> Devices:
    """Return what a VM has been given of what can be saved with it.

    Raises:
        StateError: something of it is on its way in or out.
    """
    return Devices(
        disks=made.scsi.save(),
        pmem=made.vpmem.save(),
        shares=made.plan9.save(),
        mount_points=made.layers.mount_points,
        share_names=made.plan9.names,
    )


def tables(owner: Owner, plan: LcowPlan | WcowPlan, inherited: Devices) -> Tables:
    """Make the tables of a VM, with what it has from the start, and what it has `inherited` from the VM that it goes on from."""
    lcow, wcow = (plan, None) if isinstance(plan, LcowPlan) else (None, plan)
    scsi = Scsi(owner, plan.scsi_controller_count, wcow.slots if wcow else ())
    vpmem, vsmb = VPMem(owner, lcow), Vsmb(owner, wcow.shares if wcow else ())
    vpci, pipes = VPci(owner, lcow.assigned if lcow else {}), Pipes(owner)
    layers, plan9 = Layers(owner, vpmem, scsi), Plan9(owner)
    scsi.restore(inherited.disks)
    vpmem.restore(inherited.pmem)
    plan9.restore(inherited.shares)
    layers.mount_points, plan9.names = inherited.mount_points, inherited.share_names
    return Tables(scsi, vpmem, layers, plan9, vsmb, vpci, pipes, Network(owner))
