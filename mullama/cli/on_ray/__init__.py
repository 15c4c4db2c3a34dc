"""Commands on a cluster of Ray: `--on ray` of diff, apply, undo, status, logs and down."""
