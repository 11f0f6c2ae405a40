"""The server: a pod's socket, and the path of a line from there into the ledger."""
