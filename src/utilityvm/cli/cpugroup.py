"""`uvm cpugroup`: processors of the host that several VMs share."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's command line."""
    parser.description = (
        "Make, list or remove CPU groups: VMs with --cpu-group-id NAME together use no more than the group's cap, on no processors but "
        "those of its affinity. A group lasts until it is removed or the host restarts."
    )
    verbs = parser.add_subparsers(dest="what", required=True, metavar="create|list|rm")
    create = verbs.add_parser("create", help="make a CPU group")
    create.add_argument("name", metavar="NAME", help="its name: letters, digits, _ . -; capitals count as small letters")
    create.add_argument("--cap", type=float, metavar="N", help="as many processors' worth of time as all its VMs may use, e.g. 1.5")
    create.add_argument("--affinity", default="", metavar="LIST", help="the host's processors that its VMs run on, e.g. 0,2-3")
    create.set_defaults(run=_create)
    listing = verbs.add_parser("list", help="print all CPU groups, with the VMs in them")
    listing.add_argument("--json", action="store_true", help="print JSON, an object for each group")
    listing.set_defaults(run=_list)
    remove = verbs.add_parser("rm", help="remove a CPU group that no VM is in")
    remove.add_argument("name", metavar="NAME", help="its name")
    remove.set_defaults(run=_remove)


def _create(args: argparse.Namespace) -> int:
    from utilityvm.compute.qemu.cgroup import Cgroups

    Cgroups().create_group(args.name, cap=args.cap, affinity=args.affinity)
    return 0


def _list(args: argparse.Namespace) -> int:
    from utilityvm.cli.table import print_table
    from utilityvm.compute.qemu.cgroup import Cgroups

    cgroups = Cgroups()
    cgroups.sweep()
    groups = cgroups.groups()
    if args.json:
        import msgspec

        print(msgspec.json.encode(groups).decode())
        return 0
    rows = [
        (group.name, "-" if group.cap is None else f"{group.cap:g}", group.affinity or "-", " ".join(group.vms) or "-") for group in groups
    ]
    print_table(("NAME", "CAP", "AFFINITY", "VMS"), rows)
    return 0


def _remove(args: argparse.Namespace) -> int:
    from utilityvm.compute.qemu.cgroup import Cgroups

    Cgroups().remove_group(args.name)
    return 0
