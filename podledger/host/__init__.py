"""The host: facts about processes that the kernel reports."""
