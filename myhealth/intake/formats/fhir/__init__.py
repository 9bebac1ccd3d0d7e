"""FHIR R4 (JSON): resources, Bundles, NDJSON."""
