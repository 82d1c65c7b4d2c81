"""Answers of the model that is being trained, with the weights of now, by camelid's own engine."""
