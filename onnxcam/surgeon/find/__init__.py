"""What is explained: the image input, the score, the layer."""
