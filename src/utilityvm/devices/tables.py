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


def tables(owner: Owner, plan: LcowPlan | WcowPlan) -> Tables:
    """Make the tables of a VM, with what it has from the start."""
    lcow, wcow = (plan, None) if isinstance(plan, LcowPlan) else (None, plan)
    scsi = Scsi(owner, plan.scsi_controller_count, wcow.slots if wcow else ())
    vpmem, vsmb = VPMem(owner, lcow), Vsmb(owner, wcow.shares if wcow else ())
    vpci, pipes = VPci(owner, lcow.assigned if lcow else {}), Pipes(owner)
    return Tables(scsi, vpmem, Layers(owner, vpmem, scsi), Plan9(owner), vsmb, vpci, pipes, Network(owner))
