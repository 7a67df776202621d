"""Hold tenants to their plans: in the memory of one process, or in Redis for several processes."""
