"""What both sides of the fleet know: keys, links, receipts, the names of protocol version 1."""
