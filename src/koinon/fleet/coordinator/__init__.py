"""One run at the coordinator: the sans-IO machine, its ledger and spool, the runtime that the driver is given."""
