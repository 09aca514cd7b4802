"""What a user may ask for: options, their defaults and the rules between them. Pure."""
