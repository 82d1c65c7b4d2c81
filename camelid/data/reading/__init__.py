"""Documents read from files: which files, in which units of work, which fields count."""
