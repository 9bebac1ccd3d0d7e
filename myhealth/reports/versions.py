"""MongoDB's conditions on a document's version, (epoch, revision). Pure."""

from myhealth.reports.bson_documents import StoredBson
from myhealth.reports.documents import Document

# The highest epoch of a sync. Another program wrote a document or checkpoint with a higher one: it counts as older.
EPOCH_MAX = 2**30


def older_than(document: Document) -> Document:
    """Match an older version of this document, of the same patient."""
    older = older_version(document)
    return {**older, "patient_id": document["patient_id"]} if "patient_id" in document else older


def older_version(document: Document) -> Document:
    """Match this document in an earlier epoch, or in the same epoch with a lower revision."""
    return not_after(document["_id"], document["epoch"], document["revision"] - 1)


def not_after(id_: int, epoch: int, revision: int) -> Document:
    """Match this document in a version up to (epoch, revision)."""
    return {"_id": id_, "$or": [*other_epochs(epoch), {"epoch": epoch, "revision": {"$lte": revision}}]}


def other_epochs(epoch: int) -> list[Document]:
    """Match, as alternatives, documents of earlier epochs, and those whose epoch no sync has given them."""
    return [{"epoch": {"$lt": epoch}}, {"epoch": {"$gt": max(epoch, EPOCH_MAX)}}]


def same_version(stored: StoredBson) -> Document:
    """Match a document in the version that was seen, whatever that is."""
    document = stored.document()
    return {"_id": stored.id, "epoch": document.get("epoch"), "revision": document.get("revision")}
