"""What may not stay: rules that look at one document at a time; `rules.RULES` lists them in their order."""
