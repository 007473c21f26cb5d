"""What the paper compares itself with: other ways to train the same model."""

from vae.baselines.mcem import MCEMHistory, fit_mcem
from vae.baselines.wake_sleep import WakeSleep, wake_sleep

__all__ = ["MCEMHistory", "WakeSleep", "fit_mcem", "wake_sleep"]
