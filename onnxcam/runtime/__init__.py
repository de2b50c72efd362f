"""Sessions, providers and batching."""
