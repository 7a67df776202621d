"""Read models over the store: what the API and the commands show of the past."""
