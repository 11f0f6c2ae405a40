"""The core: events, the wire protocol and the rules. Nothing here opens a file, a socket or a database."""
