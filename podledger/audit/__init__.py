"""What an incident asks: explain, difference, replay, gaps, and plain SQL."""
