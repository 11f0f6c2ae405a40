"""The demonstration: a small tree of real processes."""
