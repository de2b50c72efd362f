"""A file becomes a graph that can be worked on, and a file again."""
