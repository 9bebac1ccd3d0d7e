"""Machines: their serial numbers, labels and last uploads.

needs: common, audit
"""
