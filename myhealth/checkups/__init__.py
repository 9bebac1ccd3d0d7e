"""Check-ups, the source of truth: models and services.

needs: common, clinical, audit, profiles, machines
"""
