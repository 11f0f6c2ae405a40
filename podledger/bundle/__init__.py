"""Bundles: a part of a ledger in one file, to read and verify elsewhere."""
