"""The pure core: errors, text, paths, stamps, the wire protocol, events and the rules."""
