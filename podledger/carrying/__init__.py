"""Ledgers in other files: lines in and out, backups, collections of a tree, bundles to hand over."""
