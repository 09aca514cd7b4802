"""ttrpc on asyncio: a client and a server over whatever connects two programs of one host. Of ours it needs `kit` and its codec alone."""
