"""The views of the browse API."""
