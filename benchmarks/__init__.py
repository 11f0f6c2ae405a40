"""Compare podledger with bare SQLite, a bare server, and alternative libraries."""
