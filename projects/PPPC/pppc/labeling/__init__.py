"""What to label next, and the way to the programs in which people label."""
