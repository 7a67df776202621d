"""The HTTP API for reading and administration, and the socket that commands query."""
