"""The `myhealth` command: one file a command group. A command parses, makes one call of the domain, and renders."""
