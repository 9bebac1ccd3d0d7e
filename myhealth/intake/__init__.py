"""From bytes to stored records: read a format, validate, insert once, keep what was rejected.

needs: common, clinical, audit, profiles, machines, checkups
"""
