"""Training: one loop for every objective, encoder, data set and device, and what it needs."""
