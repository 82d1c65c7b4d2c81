"""Adapters beside a base that is loaded once."""
