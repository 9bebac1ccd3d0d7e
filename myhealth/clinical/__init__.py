"""Pure medical knowledge: analytes, reference ranges, units, report statuses. No database, no input and output.

needs: common
"""
