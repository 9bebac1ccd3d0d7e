"""Users: accounts, roles, passwords and tokens, and the client of the API that checks them.

needs: common, audit
"""

ROLES = ("patient", "doctor", "technician", "admin", "service")
SEXES = ("male", "female", "other", "unknown")
