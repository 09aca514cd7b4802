"""The utility VM: created from options, started, used, closed."""
