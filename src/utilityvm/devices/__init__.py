"""What a running VM is given and gives back: one module a kind of device, each with its table; they act through `UtilityVM.modify`."""
