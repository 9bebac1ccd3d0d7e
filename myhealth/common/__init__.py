"""What every feature stands on: errors, settings, the database handle.

needs: nothing of ours
"""
