"""One module for each command: `add_arguments` declares its arguments, and `run` runs it."""
