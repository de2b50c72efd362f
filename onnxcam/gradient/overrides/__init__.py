"""How a walk may differ from the derivative, one family of overrides a file."""
