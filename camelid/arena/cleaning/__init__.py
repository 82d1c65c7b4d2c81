"""Which votes count, and why the others do not: rules in a table, each vote with a state and a reason."""
