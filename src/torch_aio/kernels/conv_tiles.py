"""Register tiles of direct convolution, and which of them suit a plane."""

from __future__ import annotations

from collections.abc import Mapping

Tile = tuple[int, int]
TILES: dict[str, dict[Tile, float]] = {
    "avx512": {(5, 4): 1.0, (6, 4): 0.98, (4, 4): 0.98, (7, 3): 0.93, (8, 3): 0.91, (10, 1): 0.75},
    "avx2": {(6, 2): 1.0, (8, 1): 0.65},
    "neon": {(4, 4): 1.0, (7, 2): 0.99, (5, 3): 0.94},
}
"""Pixels x vectors, and speed relative to the best (one thread of Zen 5; NEON predicted).

us on 1x1 512>2048@7 and 64>256@56, two threads: 5x4 220/205, 4x4 228/205, 6x4 242/208, 7x3 217/230,
8x3 245/234, 10x2 463/452. LLVM 22 spills 8x2 to 14x2 on AVX-512: those listed do not spill.
Share of a Neoverse N1's peak by llvm-mca (``benchmarks.static``): 4x4 0.94, 7x2 0.93, 6x2 0.92, 5x3
0.88; 6x3 0.90, 8x2 0.89, 7x3 0.81, 5x4 0.79, 6x4 0.55 with spills."""
EVEN_TILES: dict[str, dict[Tile, float]] = {
    "avx512": {(6, 4): 1.0, (9, 3): 0.98, (14, 2): 0.98, (12, 2): 0.97, (13, 2): 0.95,
               (28, 1): 0.88},
    "avx2": {(6, 2): 1.0, (4, 3): 1.0, (3, 4): 1.0, (5, 2): 0.95},
    "neon": {(4, 4): 1.0, (7, 2): 0.99, (5, 3): 0.94},
}  # fmt: skip
"""The same for pixels that lie evenly (NEON predicted).

GF/s, one thread of Zen 5, AVX-512: 1x1 64>384@14 6x4 247, 9x3 246, 14x2 249, 12x2 239, 13x2 233,
28x1 224; 160>960@7, where 13 pixels fit the plane best, 217, 219, 211, 201, 227, 192. LLVM 22
spills 7x4, and two of the 30 registers of 14x2."""
PLANAR_TILES: dict[str, dict[Tile, float]] = {"avx512": {(12, 2): 0.87}, "avx2": {}, "neon": {}}
"""The same for planar input, where LLVM keeps the scalars that several pixels share until tiles
spill: 3x3s2 3>32@226 12x2 209, by table 6x4 121, 8x3 157, 10x1 126; 3>64@226 204, 228, 162, 131."""
MOST_COST = 1.15
"""How much slower than the best guess a tile may look that is worth trying."""


def tiles_for(
    tiles: Mapping[Tile, float], even: Mapping[Tile, float], pixels: int, run: int, vectors: int
) -> list[tuple[Tile, bool]]:
    """Tiles for ``pixels`` x vectors of output channels (in a group), the best guess first.

    Each with whether it is one of ``even``, which compute ``run`` pixels in a row; the others cross
    the ends of rows. Those that pad much are not among them.
    """

    def cost(choice: tuple[Tile, bool]) -> float:
        (count, width), is_even = choice
        row, speed = (run, even) if is_even else (pixels, tiles)
        padded = -(-row // count) * count / row * (-(-vectors // width) * width)
        return padded / speed[choice[0]]

    choices = sorted([*((t, True) for t in even), *((t, False) for t in tiles)], key=cost)
    return [choice for choice in choices if cost(choice) <= MOST_COST * cost(choices[0])]
