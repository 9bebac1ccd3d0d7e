"""Input formats. Each module is pure: bytes in, parsed records out; no database, no settings."""
