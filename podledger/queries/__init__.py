"""Queries on a ledger: the registry at any moment, notifications, explanations, differences, gaps, replays."""
