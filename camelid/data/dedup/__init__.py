"""Duplicates: found over all documents with bounded memory; the first in the order of the recipe stays."""
