"""How fast podledger is, beside bare SQLite, a bare server, and the libraries that one would pick instead."""
