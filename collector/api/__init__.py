"""The HTTP API that reads and administers, and the control socket."""
