"""What training takes: arithmetic, memory and time, on which devices."""
