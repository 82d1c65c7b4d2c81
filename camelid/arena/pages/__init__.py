"""The arena's pages: a battle, two chosen models side by side, a conversation that was shared, and About."""
