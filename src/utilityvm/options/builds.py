"""Windows builds from which on the host service can do something; other hosts state a build that has it all."""

KERNEL_DIRECT = 18286
V19H1 = 18362
COLD_DISCARD = 18967
V20H2_LAST = 19042
CPU_GROUP_AT_CREATE = 20124
EVERYTHING = 20348
"""What a Linux host states."""
