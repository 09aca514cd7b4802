"""Where things lie on this host."""
