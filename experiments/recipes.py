"""How the toy experiments are trained: a hot start that cools, and pictures out of focus at first.

Both are homotopies: they begin with an easier problem, whose solution the harder ones inherit.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import optax

import vae


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that training depends on besides the images, the networks and the key.

    Times are fractions of the run. beta stays at `beta` until `hold`, then falls geometrically to 1
    at `cool`. Pictures are blurred by `blur` pixels until `focus[0]`, and sharpen linearly until
    `focus[1]`. The learning rate stays as it is until `flat`, then follows a cosine to 0.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    flat: float = 0.0
    beta: float = 1.0
    hold: float = 0.5
    cool: float = 0.75
    blur: float = 0.0
    focus: tuple[float, float] = (0.6, 0.85)

    def optimizer(self, n: int) -> optax.GradientTransformation:
        """Adam with this recipe's learning rate, for n images."""
        steps = self.steps(n)
        flat = round(self.flat * steps)
        falling = optax.cosine_decay_schedule(self.learning_rate, steps - flat)
        rate = optax.join_schedules([lambda _: self.learning_rate, falling], [flat])
        return optax.adam(rate)

    def steps(self, n: int) -> int:
        """The training steps of the whole run, for n images."""
        return self.epochs * (n // self.batch_size)

    def beta_at(self, progress: jax.Array) -> jax.Array:
        """The weight on the KL when this fraction of the run is done."""
        cooled = jnp.clip((progress - self.hold) / (self.cool - self.hold), 0, 1)
        return jnp.exp((1 - cooled) * math.log(self.beta))

    def blur_at(self, progress: jax.Array) -> jax.Array:
        """The standard deviation of the blur, in pixels, when this fraction of the run is done."""
        start, end = self.focus
        return self.blur * (1 - jnp.clip((progress - start) / (end - start), 0, 1))

    def train(self, models: list, images, key: jax.Array, **options) -> list[vae.History]:
        """Train the models together on these images with `vae.fit_many`; return their curves."""
        plain = isinstance(models[0], vae.Autoencoder)
        steps, schedules = self.steps(len(images)), {}
        if not plain and self.beta != 1:
            schedules["beta"] = lambda step: self.beta_at(step / steps)
        if not plain and self.blur:
            schedules["blur"] = lambda step: self.blur_at(step / steps)
        objective = out_of_focus if "blur" in schedules else vae.beta_objective
        return vae.fit_many(
            models,
            images,
            key=key,
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer(len(images)),
            objective=vae.reconstruction if plain else objective,
            schedules=schedules,
            **options,
        )


def out_of_focus(model, x: jax.Array, key: jax.Array, beta: float = 1.0, blur: float = 0.0):
    """`vae.beta_objective` on blurred pictures, each brought back to a largest intensity of 1.

    Shapes and units as there: x (batch, 784), values (batch,), in nats. With blur 0 and pictures
    whose brightest pixel is 1 it is `vae.beta_objective`.
    """
    blurred = jnp.clip(vae.datasets.blur(x, blur), 0, None)
    brightest = jnp.max(blurred, axis=-1, keepdims=True)
    return vae.beta_objective(model, jnp.minimum(blurred / brightest, 1), key, beta=beta)
