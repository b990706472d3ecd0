"""Migrations of the schema, run by `archsearch.storage.schema`."""
