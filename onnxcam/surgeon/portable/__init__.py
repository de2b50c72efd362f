"""Portable models: explanations finished inside the graph, in standard operators."""
