"""The schema's history, one file a step, applied in order by `myhealth migrate`; tables are frozen inline.

Statements go through `db.cursor()`: `db.execute_sql()` passes parameters, and would read a % in them as a place
for one.
"""
