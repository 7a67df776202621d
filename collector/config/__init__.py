"""The settings: what there is, where values come from, and how they are checked."""
