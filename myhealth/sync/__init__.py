"""From the source of truth to the report store: everything, once, in order, and nothing twice.

The algorithm and why it loses nothing: DESIGN.md, "The sync, and why it loses nothing".
needs: common, clinical, profiles, intake, checkups, reports
"""
