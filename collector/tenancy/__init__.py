"""Who sends, what its key allows, and by which plan: keys, scopes, plans."""
