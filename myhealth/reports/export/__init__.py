"""What leaves the report store: CSV and FHIR R4."""
