"""The look of every picture."""
