"""The server of a file share: a process of its own for each, whose root is the share."""
