"""Every table has a model, and every model has the columns that the migrations made."""

from typing import Any

import peewee
import pytest

from myhealth.audit import models as audit
from myhealth.checkups import models as checkups
from myhealth.checkups.models import ASSIGNED, RECORD_COLUMNS
from myhealth.common.database import Table, database
from myhealth.intake import models as intake
from myhealth.intake.record import Record
from myhealth.machines import models as machines
from myhealth.profiles import models as profiles
from myhealth.sync import models as sync

MODELS = sorted(
    {
        model
        for module in (audit, checkups, intake, machines, profiles, sync)
        for model in vars(module).values()
        if isinstance(model, type) and issubclass(model, Table) and model.__module__ == module.__name__
    },
    key=lambda model: model._meta.table_name,
)
COLUMNS = """
select column_name, data_type, is_nullable = 'YES', column_default is not null, is_identity = 'YES'
from information_schema.columns where table_schema = 'public' and table_name = %s"""
TYPES = {
    "BLOB": "bytea",
    "TIMESTAMPTZ": "timestamp with time zone",
    "JSONB": "jsonb",
    "BOOL": "boolean",
    "INT": "integer",
}
UNIQUE = """
select array_agg(attname order by attname) from pg_index, unnest(indkey) as keys (key), pg_attribute
where indrelid = %s::regclass and indisunique and indpred is null and attrelid = indrelid and attnum = key
group by indexrelid having count(*) > 0"""


def test_every_table_has_a_model(db) -> None:
    assert {model._meta.table_name for model in MODELS} == set(database.get_tables()) - {"schema_migration"}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.table_name)
def test_a_model_has_the_columns_of_its_table(db, model: Any) -> None:
    stored = {name: rest for name, *rest in db(COLUMNS, model._meta.table_name)}
    fields = {field.column_name: field for field in model._meta.sorted_fields}
    assert set(fields) == set(stored)
    for name, (data_type, nullable, has_default, is_identity) in stored.items():
        field = fields[name]
        type_name = (field.rel_field if isinstance(field, peewee.ForeignKeyField) else field).field_type
        type_name = {"AUTO": "INT", "BIGAUTO": "BIGINT"}.get(type_name, type_name)
        assert TYPES.get(type_name, type_name.lower()) == data_type, name
        assert field.null == nullable, name
        by_database = any("DEFAULT" in constraint.sql for constraint in field.constraints or ())
        assert (by_database or field.default is not None) == has_default, name
        assert isinstance(field, peewee.AutoField) == is_identity, name


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.table_name)
def test_a_model_names_what_is_unique(db, model: Any) -> None:
    stored = {tuple(names) for (names,) in db(UNIQUE, model._meta.table_name)}
    meta = model._meta
    key = [field.column_name for field in meta.get_primary_keys()]
    named = {tuple(sorted(key))} | {(field.column_name,) for field in meta.sorted_fields if field.unique}
    for index in meta.indexes:
        if isinstance(index, tuple) and index[1]:
            named.add(tuple(sorted(meta.fields[name].column_name for name in index[0])))
    assert named == stored


def test_a_record_fills_every_column_that_nobody_assigns() -> None:
    assert {column.name for column in RECORD_COLUMNS} <= set(Record.__struct_fields__)
    assert {column.name for column in RECORD_COLUMNS} | set(ASSIGNED) == set(checkups.Checkup._meta.columns)
