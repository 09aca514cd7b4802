"""Containers in a utility VM: what they are made of, how they run, and how all of it is given back."""
