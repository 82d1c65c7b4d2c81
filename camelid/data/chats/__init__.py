"""Conversations, preferences and prompts: the forms people have them in become ids, with a mask of what is learned."""
