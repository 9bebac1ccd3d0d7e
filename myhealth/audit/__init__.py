"""The audit trail: every login, refusal, access to another user's record, upload and change of an account.

needs: common, reports
"""
