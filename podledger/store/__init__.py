"""Where everything is kept: the database, the log, the rules' results as rows, and the one transaction."""
