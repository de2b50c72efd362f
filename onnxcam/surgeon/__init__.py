"""Read, check and rewrite models; never run them."""
