"""The settings: their names and types, the sources of their values, and their checks."""
