"""Where a ledger is kept: the database, the log, the projections as rows, and the one transaction that appends.

How the database is reached:

- A query uses the async engine (`Database.read`). It is a function that takes a connection, in `queries`.
- The writer and the jobs that read a whole log (`verify`, `rebuild`, `replay`, backup, bundle, collect, `recover`,
  `doctor`) use a sync engine: `Database.write` and `Database.run_job` for an open ledger, `connections.read_only` for
  a file. A database creates its engines once, and `Database.close` closes them.
- Statements are SQLAlchemy Core. Those of every append and of the common queries are a `driver.HotStatement`: the
  same Core, compiled once, whose text runs on the driver.
- Only the package `sqlite` knows SQLite: pragmas, catalogue, checkpoints, limits, error codes.
"""
