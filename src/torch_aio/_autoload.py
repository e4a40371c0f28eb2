"""What `import torch` runs."""


def autoload() -> None:
    """Hook the engine into PyTorch."""
