"""What a network is made of (torch only)."""
