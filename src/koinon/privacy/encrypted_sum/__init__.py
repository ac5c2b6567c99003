"""Sums that a coordinator adds up without seeing a number, by homomorphic encryption under a third party's key.

Clients encrypt (``client``), the coordinator adds ciphertexts (``ciphertexts``), a key holder decrypts the
sum under the coordinator's blind (``holder``). Needs ``koinon[he]``, except for the coordinator.
"""
