"""Templates of VMs, and what is made of them."""
