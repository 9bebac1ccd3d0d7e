"""Check-ups, the source of truth: records are checked, stored once, and what is refused is kept.

needs: common, audit, profiles, machines
"""
