"""All that only SQLite understands: its URLs, pragmas, catalogue, checkpoints, backups, limits and error codes.

The rest of podledger states its SQL in SQLAlchemy Core. A store in another database is a package with the same
functions.
"""
