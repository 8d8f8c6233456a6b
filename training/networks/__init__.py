"""The networks, a module per family. `training.models` has them by name."""
