"""The audit trail: every login, refusal, look at another's record, upload and change of an account.

needs: common, reports
"""
