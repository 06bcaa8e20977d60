"""What runs on one machine with nothing else installed: servers as child processes, and a small model."""
