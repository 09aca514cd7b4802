"""Options and facts become an HCS document. Pure: the host is looked at by the caller."""
