"""Losses: of tokens, of pairs, of what a model wrote itself; each a function of hidden states or log-probabilities."""
