"""Checks that a ledger is unchanged: verification, notes and signatures."""
