"""What surrounds the loop: the workdir, settings, checkpoints, the ledger, metrics and screens."""
