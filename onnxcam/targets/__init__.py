"""What is explained, as a user names it: one kind of target a file."""
