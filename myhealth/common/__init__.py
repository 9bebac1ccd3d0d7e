"""The base of every feature: errors, settings, the database handle.

needs: nothing of ours
"""
