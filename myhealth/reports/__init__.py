"""The report store: check-ups as JSON documents in MongoDB, for browsing. A mirror; PostgreSQL has the truth.

needs: common, clinical
"""
