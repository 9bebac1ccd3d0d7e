"""The `myhealth` command: a file for each command group, or for a few that belong together.

A command parses, makes one call of the domain, and renders.
"""
