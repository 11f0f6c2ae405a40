"""The receiving side: a pod's socket, and the way of a line from there into the ledger."""
