"""Photographs, ready arrays and what is known of how to prepare them."""
