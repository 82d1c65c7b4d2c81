"""Conversations become ids, and answers become tool calls: chat templates, run in a sandbox or told in Python."""
