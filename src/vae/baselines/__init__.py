"""What the paper compares itself with: other ways to train the same model."""

from vae.baselines.wake_sleep import WakeSleep, wake_sleep

__all__ = ["WakeSleep", "wake_sleep"]
