"""Documents become batches: read, clean, deduplicate, decontaminate, tokenise, order and pack."""
