"""Training and measuring NOSA adapters for dense code models."""
