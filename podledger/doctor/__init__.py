"""What endangers a database, and how to recover a damaged one."""
