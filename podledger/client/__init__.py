"""The client: sends one event to one pod's socket."""
