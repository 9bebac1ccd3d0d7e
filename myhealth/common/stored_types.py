"""Types of stored values in messages, with their bounds: msgspec checks them and writes their JSON Schemas."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta

Id = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Integer = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
# Schemas of datetimes without a `tz` constraint have no format.
StoredMoment = Annotated[datetime, Meta(extra_json_schema={"format": "date-time"})]
