"""Dump MongoDB's audit events, or read them back: audit_events.py dump|restore FILE, with MYHEALTH_MONGO_URL.

FILE is gzipped BSON, as `mongodump --collection audit_events --gzip` writes it. Events that are there already stay.
"""

import gzip
import os
import sys

import bson
import pymongo
from pymongo.errors import BulkWriteError
from pymongo.write_concern import WriteConcern

BATCH, DUPLICATE = 1000, 11000


def dump(events, path):
    with gzip.open(path, "wb") as file:
        for batch in events.find_raw_batches({}, sort=[("_id", 1)]):
            file.write(batch)


def restore(events, path):
    with gzip.open(path, "rb") as file:
        documents = list(bson.decode_file_iter(file))
    for start in range(0, len(documents), BATCH):
        try:
            events.insert_many(documents[start : start + BATCH], ordered=False)
        except BulkWriteError as error:
            if any(each["code"] != DUPLICATE for each in error.details["writeErrors"]):
                raise


if __name__ == "__main__":
    action, path = sys.argv[1:]
    with pymongo.MongoClient(os.environ["MYHEALTH_MONGO_URL"]) as client:
        collection = client.get_default_database().get_collection(
            "audit_events", write_concern=WriteConcern("majority", j=True)
        )
        {"dump": dump, "restore": restore}[action](collection, path)
