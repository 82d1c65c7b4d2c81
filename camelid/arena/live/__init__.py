"""The live arena: battles on their way, votes as they are cast, and what is kept of both."""
