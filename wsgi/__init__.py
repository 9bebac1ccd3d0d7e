"""The two HTTP applications: `wsgi.upload` takes records in, `wsgi.browse` gives reports back.

Importing them opens nothing.
"""
