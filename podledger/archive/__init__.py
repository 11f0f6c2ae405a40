"""Ledgers in other files: import, export, backup and collection."""
