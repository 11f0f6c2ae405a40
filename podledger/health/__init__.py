"""What endangers a database, and what a damaged one still holds."""
