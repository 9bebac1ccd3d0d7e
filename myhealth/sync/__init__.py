"""From the source of truth to the report store: everything, once, in order, and nothing twice.

The algorithm and why it loses nothing: myhealth/README.md, "Why the sync loses nothing".
needs: common, clinical, profiles, machines, intake, checkups, reports, privacy
"""
