"""The long runs: one module each, resumable; `results/` holds what they recorded.

`python -m experiments` lists them with their cost and what is recorded.
"""
