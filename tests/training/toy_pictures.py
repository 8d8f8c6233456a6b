"""Pictures that a small network learns in seconds."""

import numpy as np


def toy_set(count: int, seed: int, size: tuple[int, int] = (96, 160)) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pictures whose class is their colour: blocks of 32 pixels of three classes, with noise."""
    random = np.random.default_rng(seed)
    colours = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]], np.float64)
    pairs = []
    for _ in range(count):
        blocks = random.integers(3, size=(size[0] // 32, size[1] // 32))
        labels = np.kron(blocks, np.ones((32, 32), int)).astype(np.uint8)
        image = colours[labels] + random.normal(0, 10, (*labels.shape, 3))
        pairs.append((image.clip(0, 255).astype(np.uint8), labels))
    return pairs
