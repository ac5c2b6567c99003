"""The key holder of an encrypted sum: a process of its own, at another institution than the coordinator's."""
