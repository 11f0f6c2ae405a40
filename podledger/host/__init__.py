"""The host: facts about processes and files that the kernel vouches for."""
