"""From image files to input tensors, and from maps back to pictures."""
