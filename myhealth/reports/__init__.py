"""The report store: check-ups as JSON documents in MongoDB, for browsing. A copy; PostgreSQL is the source of truth.

needs: common, clinical
"""

TREND_LIMIT, TREND_LIMIT_MAX = 1000, 5000  # reports of one trend
