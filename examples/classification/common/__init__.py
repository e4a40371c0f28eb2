"""What the classification examples share: options, photos, weights, timing."""
