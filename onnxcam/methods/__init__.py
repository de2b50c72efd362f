"""Each explanation: its formula, its paper, and what it needs of the network."""
