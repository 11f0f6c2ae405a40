"""The doctor, which finds what endangers a database, and the recovery of a damaged one."""
