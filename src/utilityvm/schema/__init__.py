"""HCS v2.1 documents as typed structs, and their JSON law."""
