"""The report store: check-ups as JSON documents in MongoDB, for browsing. A copy; PostgreSQL is the source of truth.

needs: common, clinical
"""
