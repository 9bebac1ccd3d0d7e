"""Input formats. Each module is pure: bytes in, parsed records out; no database, no settings."""

# The names of `registry.FORMATS`, for the help of a command, which loads no reader.
NAMES = ("hl7", "fhir", "list", "memory", "object", "ndjson", "csv")
