"""The demo: a small tree of real processes."""
