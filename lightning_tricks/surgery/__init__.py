"""Changes of one network into another (torch only)."""
