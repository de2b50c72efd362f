"""What several gradient rules share."""
