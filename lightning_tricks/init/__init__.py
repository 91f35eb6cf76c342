"""How a network's weights begin (torch only)."""
