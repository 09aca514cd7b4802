"""`uvm inspect`: what an image says of itself, and where its layers are."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's command line."""
    parser.description = "Print all that is known of images, as JSON: an object for each. Layers are listed from the topmost down."
    parser.add_argument("names", metavar="IMAGE", nargs="+", help="its name or id")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    import msgspec

    from utilityvm.images.look import whole
    from utilityvm.images.store import ImageStore

    store = ImageStore.of_user()
    described = [whole(store.get(name)) for name in args.names]
    print(msgspec.json.format(msgspec.json.encode(described), indent=2).decode())
    return 0
