"""The FHIR R4 view of the report store: resources with stable ids, searches and their pages."""
