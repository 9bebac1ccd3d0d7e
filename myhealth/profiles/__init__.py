"""Users: accounts, roles, passwords and tokens, and the client of the API that checks them.

needs: common, audit
"""
