"""Read models over the store, for the API and the commands."""
