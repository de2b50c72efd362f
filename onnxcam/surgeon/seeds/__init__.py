"""Where the walk back starts: one class's row of the last linear layer, or the score itself."""
