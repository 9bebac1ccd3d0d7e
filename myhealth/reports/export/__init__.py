"""Exports of reports: CSV and FHIR R4."""
