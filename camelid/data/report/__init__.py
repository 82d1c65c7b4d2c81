"""What a prepared folder holds: counted, summed up, and shown as a page."""
