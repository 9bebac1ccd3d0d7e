"""A person's data as a whole: its erasure, its export, and how long each kind is kept.

needs: common, audit, profiles, intake, checkups, reports
"""
