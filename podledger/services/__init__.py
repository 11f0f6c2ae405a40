"""Services that run next to an open ledger: the outbox and the reconciler."""
