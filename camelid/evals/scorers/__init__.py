"""Verdicts on answers: text and gold go in, right, wrong or unparsable comes out. No models, no files here."""
