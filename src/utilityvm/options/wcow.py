"""What a user may ask of a utility VM with a Windows guest, beyond what is asked of every VM (`options.shared`)."""

from typing import Annotated

import msgspec

from utilityvm.options.declare import option
from utilityvm.options.resources import ScsiMount, VsmbShare
from utilityvm.options.shared import Options


class OptionsWCOW(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of a utility VM with a Windows guest."""

    layer_folders: Annotated[
        tuple[str, ...],
        option(
            "Folders of the guest's layers: read-only ones from the topmost to the base, then the one of the scratch disk.",
            go="LayerFolders",
            short="layer",
            value="DIR",
        ),
    ] = ()
    is_template: Annotated[bool, option("The VM will be saved as a template for clones.", go="IsTemplate")] = False
    is_clone: Annotated[bool, option("Create the VM from a template.", go="IsClone")] = False
    template_config: Annotated["TemplateConfigWCOW | None", option("The template that a clone is made from.", go="TemplateConfig")] = None


class TemplateConfigWCOW(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a clone must know of its template: its VM id, what it had, and the options that it was created with."""

    uvm_id: Annotated[str, option("The template's VM id.", go="UVMID")]
    resources: Annotated[
        tuple[ScsiMount | VsmbShare, ...],
        option("What the template had, and a clone gets of its own: disks and shared folders.", go="Resources"),
    ] = ()
    create_options: Annotated[OptionsWCOW, option("The options that the template was created with.", go="CreateOpts")]
