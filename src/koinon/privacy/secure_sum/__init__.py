"""The secure sum: a coordinator learns the sum of its clients' integers and nothing else of them.

Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning", CCS 2017, in its variant against
a malicious server, for 3 to 99 clients; Bell et al., "Secure Single-Server Aggregation with (Poly)Logarithmic
Overhead", CCS 2020, for more. Pure: bytes in, bytes out; no input or output, no clock. `docs/secure-sum.md` draws it.
"""
