"""What a run tells of itself while it goes: metrics, the display, plots, other trackers."""
