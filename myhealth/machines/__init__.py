"""Machines: which ones there are, and what is known of each.

needs: common, audit
"""
