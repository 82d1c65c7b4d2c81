"""Names become files on this machine: the catalog, where files come from, how they are fetched, where they lie."""
