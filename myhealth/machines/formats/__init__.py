"""The formats that machines speak. Each module is pure: text in, readings out; no database, no settings."""
