"""Check-ups, the source of truth: models and services.

needs: common, audit, profiles, machines
"""
