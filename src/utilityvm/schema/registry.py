"""Changes of a Windows guest's registry."""

from msgspec import field

from utilityvm.schema.node import Node


class RegistryKey(Node, frozen=True, kw_only=True):
    """A key below one of the hives; a volatile one is gone with the guest's next start."""

    hive: str = field(default="", name="Hive")
    name: str = field(default="", name="Name")
    volatile: bool = field(default=False, name="Volatile")


class RegistryValue(Node, frozen=True, kw_only=True):
    """A value; `type` says which of its members holds it (``String``, ``DWord``, ...)."""

    key: RegistryKey | None = field(default=None, name="Key")
    name: str = field(default="", name="Name")
    type: str = field(default="", name="Type")
    string_value: str = field(default="", name="StringValue")
    binary_value: str = field(default="", name="BinaryValue")
    dword_value: int = field(default=0, name="DWordValue")
    qword_value: int = field(default=0, name="QWordValue")
    custom_type: int = field(default=0, name="CustomType")


class RegistryChanges(Node, frozen=True, kw_only=True):
    """Values to add, keys to delete."""

    add_values: list[RegistryValue] = field(default_factory=list, name="AddValues")
    delete_keys: list[RegistryKey] = field(default_factory=list, name="DeleteKeys")
