"""Machines, and what they send: their records are read here, byte by byte, and judged elsewhere.

needs: common
"""
