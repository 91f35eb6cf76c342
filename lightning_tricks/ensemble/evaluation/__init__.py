"""What an ensemble says about patterns, and why it is better than its members."""
