"""torch-aio: an inference acceleration engine for PyTorch on CPUs."""
