"""Speculative decoding: propose a few ids, verify them in one pass, keep those that would have been written anyway."""
