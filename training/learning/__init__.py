"""The parts of the training loop: configuration, recipes, crops, optimiser, one step, what a run keeps and shows."""
