"""The views of the upload API."""
