"""A person's data as a whole: its erasure, its export, how long each kind is kept, and the rule of each table.

needs: common, audit, profiles, intake, checkups, reports
"""
