"""Pure medical knowledge: analytes, ranges, units, codes, statuses, words for people. No database, no input and output.

needs: common
"""
