"""Users: who they are, what they may do, how they prove it.

needs: common, audit
"""
