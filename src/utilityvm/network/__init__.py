"""How a guest reaches networks: what passes, by whom, and what is closed."""
