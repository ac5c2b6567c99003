"""The steps an update passes through between client and server: first on facts, then on tensors."""
