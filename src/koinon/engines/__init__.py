"""How a chunk of clients is computed: the reference loop, and the compiled engines held to it."""
