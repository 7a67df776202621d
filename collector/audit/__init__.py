"""Check that what was acknowledged is stored, once."""
