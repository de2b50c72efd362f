"""Gradient rules by operator family; importing a module registers its rules."""
