"""The sending side: one event to one pod's socket."""
