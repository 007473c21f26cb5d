"""`fit` one model, or `fit_many` at once: whole epochs compiled, with progress and checkpoints."""

import dataclasses
import functools
import inspect
import time
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from vae import checkpoints, checks
from vae.evaluation import as_intensities, check_bounded, check_images, evaluate
from vae.objectives import elbo
from vae.progress import Progress


@dataclasses.dataclass(frozen=True)
class History:
    """The training curve, one entry per epoch; all values are means over examples, in nats.

    `examples` counts the training examples seen by the end of each epoch, `seconds` the training
    time up to then. `objective` is what was maximised; `log_likelihood`, `kl` and `bound`, their
    difference, are unweighted whatever the objective was (NaN where the objective does not say).
    They are means over the epoch's own minibatches, taken before each update. `validation_bound`
    is the mean bound over the validation set after the epoch, NaN where it was not computed.
    Read in book/building/vae.md, equation `eq-objective`.
    """

    examples: np.ndarray
    seconds: np.ndarray
    objective: np.ndarray
    bound: np.ndarray
    log_likelihood: np.ndarray
    kl: np.ndarray
    validation_bound: np.ndarray


def fit(
    model,
    images,
    *,
    key: jax.Array,
    epochs: int,
    batch_size: int,
    optimizer: optax.GradientTransformation,
    objective=elbo,
    schedules=None,
    validation=None,
    validate_every=1,
    progress: bool = True,
    callback=None,
    checkpoint=None,
    checkpoint_every: int = 1,
) -> History:
    """Train `model` in place by stochastic gradient ascent on the mean objective; return the curve.

    Each epoch visits the images once, in a new random order and in minibatches of batch_size; what
    is left over at the end of an epoch is dropped. An epoch is one compiled `jax.lax.scan`, and
    the images stay on the device as they are (uint8 takes a quarter of the memory).

    Args:
      images: (n, data_dim), uint8 levels 0..255 or floating-point.
      key: a JAX random key; the same key on the same machine gives the same bits.
      optimizer: any Optax optimiser. It sees the gradient of the mean loss, in nats per example.
      objective: (model, x, key) -> the values to maximise, (batch,), in nats; or a tuple of those,
        the log-likelihood and the unweighted KL, as `elbo` returns.
      schedules: keyword arguments of the objective that change while training, each a function of
        the step, counted from 0 through all epochs, as Optax's schedules are: warm-up is
        {"beta": optax.linear_schedule(0.0, 1.0, 2000)} with objective=beta_objective.
      validation: images to evaluate the bound on after every `validate_every`-th epoch and the
        last; `validate_every` may be a function instead, of the epochs done, that says whether.
      callback: called as callback(epochs done, model) after each epoch, to keep or show what the
        model has learned so far.
      checkpoint: a `.npz` file; written after every `checkpoint_every`-th epoch and the last. Where
        it exists, training continues from it and ends in the bits of an uninterrupted run. It knows
        its images, key and batch_size; that optimizer, objective and schedules are the same is
        yours to keep.

    Raises TypeError or ValueError, before anything is compiled, for images that do not fit the
    model, a batch_size larger than the set, or a checkpoint of another run (left as it is). Raises
    FloatingPointError at the first non-finite objective, naming the step; the model then keeps
    the parameters from before that epoch.
    Derived in book/building/vae.md, equation `eq-objective`, and book/building/training.md,
    equation `eq-epoch`; Kingma & Welling 2013, Algorithm 1.
    """
    images, epochs, batch_size = check_run(model, images, key, epochs, batch_size, optimizer)
    schedules = _check_schedules(objective, schedules)
    if callable(validate_every):
        is_validated = validate_every
    else:
        checks.positive_int("validate_every", validate_every)

        def is_validated(epochs_done):
            return epochs_done % validate_every == 0

    checks.positive_int("checkpoint_every", checkpoint_every)
    checks.function_or_none("callback", callback)
    if validation is not None:
        check_bounded(model)
        validation = check_images(model, validation, "validation")

    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    opt_state = optimizer.init(params)
    run = fingerprint(images, key, batch_size)
    (params, opt_state), curve = resume(checkpoint, (params, opt_state), run, epochs)
    nnx.update(model, params)

    train_key, validation_key = jax.random.split(key)
    bar = Progress(epochs, done=len(curve), enabled=progress)
    seconds, steps = curve[-1][1] if curve else 0.0, len(images) // batch_size
    for epoch in range(len(curve), epochs):
        started = time.perf_counter()
        static = graphdef, optimizer, objective, schedules, batch_size
        epoch_key, first_step = jax.random.fold_in(train_key, epoch), jnp.asarray(epoch * steps)
        arrays = params, opt_state, rest, images, epoch_key, first_step
        params, opt_state, terms, finite = _run_epoch(static, False, *arrays)
        terms = np.asarray(terms, np.float64)
        seconds += time.perf_counter() - started
        if not (finite.all() and np.isfinite(terms[:, 0]).all()):
            finite = _run_epoch(static, True, *arrays)[-1]  # once more, to find the step
            _stop(terms[:, 0], np.asarray(finite), first_step=epoch * steps + 1)
        nnx.update(model, params)

        last, score = epoch + 1 == epochs, np.nan
        if validation is not None and (last or is_validated(epoch + 1)):
            score_key = jax.random.fold_in(validation_key, epoch)
            score = float(np.mean(evaluate(model, validation, key=score_key).bound))
        value, log_likelihood, kl = (float(mean) for mean in terms.mean(axis=0))
        examples = (epoch + 1) * steps * batch_size
        curve.append([examples, seconds, value, log_likelihood - kl, log_likelihood, kl, score])
        if checkpoint is not None and (last or (epoch + 1) % checkpoint_every == 0):
            checkpoints.save(checkpoint, (params, opt_state), {"run": run, "curve": curve})
        name = "bound" if objective is elbo else "objective"
        bar.update(
            epoch + 1,
            f"{name} {value:.2f} nats"
            + ("" if np.isnan(score) else f", validation bound {score:.2f}"),
        )
        if callback is not None:
            callback(epoch + 1, model)
    return _history(curve)


def fit_many(
    models,
    images,
    *,
    key: jax.Array,
    epochs: int,
    batch_size: int,
    optimizer: optax.GradientTransformation,
    objective=elbo,
    schedules=None,
    progress: bool = True,
    callback=None,
) -> list[History]:
    """Train models of one architecture on the same images, all at once; return their curves.

    Model i ends, but for rounding, where `fit` with the key `jax.random.split(key, len(models))[i]`
    would have left it: each has its own order of the images and its own draws. The step is that
    of `fit` under `jax.vmap`, so that many seeds cost one compilation, and little more time than
    one on a device with room for them.

    Args:
      models: a list of models that differ in the values of their parameters alone, such as those
        that one function makes of different seeds. Each is trained in place.
      callback: called as callback(epochs done, models) after each epoch.
      The others are those of `fit`.

    Raises as `fit` does, and ValueError for models of different architectures. The seconds of each
    `History` are those of all models together.
    Used in book/reproducing/circles.md; the objective is book/building/vae.md, equation
    `eq-objective`.
    """
    models = list(models)
    if not models:
        raise ValueError("models must be a list of at least one model, got none")
    images, epochs, batch_size = check_run(models[0], images, key, epochs, batch_size, optimizer)
    schedules = _check_schedules(objective, schedules)
    checks.function_or_none("callback", callback)
    splits = [nnx.split(model, nnx.Param, ...) for model in models]
    graphdef = splits[0][0]
    shapes = [
        [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves((params, rest))]
        for _, params, rest in splits
    ]
    for i, (other, _, _) in enumerate(splits):
        if other != graphdef or shapes[i] != shapes[0]:
            raise ValueError(f"models must share one architecture, but models[{i}] has another")

    params, rest = (
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *part)
        for part in ([split[1] for split in splits], [split[2] for split in splits])
    )
    opt_state = jax.vmap(optimizer.init)(params)
    train_keys = jax.vmap(lambda key: jax.random.split(key)[0])(jax.random.split(key, len(models)))
    curves, steps = [], len(images) // batch_size
    bar, seconds = Progress(epochs, enabled=progress), 0.0
    for epoch in range(epochs):
        started = time.perf_counter()
        static = graphdef, optimizer, objective, schedules, batch_size
        keys = jax.vmap(jax.random.fold_in, (0, None))(train_keys, epoch)
        arrays = params, opt_state, rest, images, keys, jnp.asarray(epoch * steps)
        params, opt_state, terms, finite = _run_epoch_of_many(static, False, *arrays)
        terms, finite = np.asarray(terms, np.float64), np.asarray(finite)
        seconds += time.perf_counter() - started
        bad = ~(finite & np.isfinite(terms[:, :, 0]).all(axis=1))
        if bad.any():
            finite = np.asarray(_run_epoch_of_many(static, True, *arrays)[-1])
            i = int(np.flatnonzero(bad)[0])
            _stop(terms[i, :, 0], finite[i], first_step=epoch * steps + 1, name=f"models[{i}]")
        for i, model in enumerate(models):
            nnx.update(model, jax.tree.map(lambda leaf, i=i: leaf[i], params))

        examples = (epoch + 1) * steps * batch_size
        value, log_likelihood, kl = means = terms.mean(axis=1).T
        columns = np.broadcast_arrays(
            examples, seconds, value, log_likelihood - kl, log_likelihood, kl, np.nan
        )
        curves.append(np.stack(columns, axis=-1))
        name = "bound" if objective is elbo else "objective"
        low, high = means[0].min(), means[0].max()
        bar.update(epoch + 1, f"{name} {low:.2f} to {high:.2f} nats over {len(models)} models")
        if callback is not None:
            callback(epoch + 1, models)
    return [_history(curve) for curve in np.stack(curves, axis=1)]


def _history(curve) -> History:
    columns = np.array(curve, np.float64).T
    return History(columns[0].astype(np.int64), *columns[1:])


def _epoch(static, watch, params, opt_state, rest, images, key, first_step):
    """One pass over the images: (params, opt_state, (steps, 3) means, are the params finite).

    The last is one answer for the end of the epoch; with `watch`, one after each step, which
    costs a pass over the parameters each.
    """
    graphdef, optimizer, objective, schedules, batch_size = static
    order_key, steps_key = jax.random.split(key)
    steps = len(images) // batch_size
    order = jax.random.permutation(order_key, len(images))[: steps * batch_size]
    numbers = first_step + jnp.arange(steps)
    batches = order.reshape(steps, batch_size), jax.random.split(steps_key, steps), numbers

    def loss(params, x, key, number):
        scheduled = {name: schedule(number) for name, schedule in schedules}
        terms = objective(nnx.merge(graphdef, params, rest), x, key, **scheduled)
        if not isinstance(terms, tuple):
            terms = terms, jnp.full_like(terms, jnp.nan), jnp.full_like(terms, jnp.nan)
        if len(terms) != 3:
            raise TypeError(
                "objective must return an array, or a tuple of objective, log-likelihood and KL, "
                f"got a tuple of {len(terms)}"
            )
        means = jnp.stack([jnp.mean(term) for term in terms])
        return -means[0], means

    def step(carry, batch):
        params, opt_state = carry
        rows, key, number = batch
        x = as_intensities(images[rows])
        grads, means = jax.grad(loss, has_aux=True)(params, x, key, number)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        return (params, opt_state), (means, all_finite(params) if watch else None)

    def all_finite(params):
        return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]).all()

    (params, opt_state), (means, finite) = jax.lax.scan(step, (params, opt_state), batches)
    return params, opt_state, means, finite if watch else all_finite(params)


_run_epoch = functools.partial(jax.jit, static_argnums=(0, 1))(_epoch)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run_epoch_of_many(static, watch, params, opt_state, rest, images, keys, first_step):
    """`_run_epoch` of many models: what it takes and returns has an axis of models in front."""

    def one(params, opt_state, rest, key):
        return _epoch(static, watch, params, opt_state, rest, images, key, first_step)

    return jax.vmap(one)(params, opt_state, rest, keys)


def _stop(
    values: np.ndarray, params_finite: np.ndarray, first_step: int, name: str = "The model"
) -> None:
    """Raise, naming the first step whose objective, or whose update, was not finite."""
    objective, update = (np.flatnonzero(~np.isfinite(values)), np.flatnonzero(~params_finite))
    said = []
    if len(objective):
        said.append(
            f"the objective became {values[objective[0]]} at step {first_step + objective[0]}"
        )
    if len(update) and (not len(objective) or update[0] < objective[0]):
        said.append(f"the update of step {first_step + update[0]} made the parameters non-finite")
    what = " after ".join(said)
    raise FloatingPointError(
        f"{what} (steps count from 1). {name} keeps its parameters from before this epoch. "
        "A smaller learning rate, or gradient clipping (optax.clip_by_global_norm), usually helps."
    )


def check_run(model, images, key, epochs, batch_size, optimizer) -> tuple:
    """(images on the device, epochs, batch_size), or an error before anything is compiled."""
    images = check_images(model, images)
    epochs = checks.positive_int("epochs", epochs)
    batch_size = checks.positive_int("batch_size", batch_size)
    checks.random_key("key", key)
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            f"optimizer must be one of Optax's, such as optax.adam(1e-3), got {optimizer!r}"
        )
    if batch_size > len(images):
        raise ValueError(f"batch_size is {batch_size}, but there are only {len(images)} images")
    return images, epochs, batch_size


def _check_schedules(objective, schedules) -> tuple:
    """The schedules as (name, function) pairs, or an error where the objective takes no such."""
    schedules = schedules or {}
    if not isinstance(schedules, dict) or not all(map(callable, schedules.values())):
        raise TypeError(
            "schedules must be a dict from names of the objective's arguments to functions of the "
            f'step, such as {{"beta": optax.linear_schedule(0.0, 1.0, 2000)}}, got {schedules!r}'
        )
    parameters = inspect.signature(objective).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    unknown = [name for name in schedules if name not in parameters and not takes_any]
    if unknown:
        raise TypeError(
            f"the objective takes no argument {unknown[0]!r} that a schedule could set; it takes "
            f"{list(parameters)}"
        )
    return tuple(sorted(schedules.items()))


def fingerprint(images, key, batch_size: int) -> dict:
    """What a checkpoint must share with the run that resumes from it."""
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.key_data(key)
    return {
        "images": f"{images.dtype}{list(images.shape)} crc32 {zlib.crc32(np.asarray(images)):08x}",
        "key": np.asarray(key).tolist(),
        "batch_size": batch_size,
    }


def resume(path, state, run: dict, epochs: int) -> tuple:
    """(state, curve) of the run that `path` holds; `state` and no curve where nothing is there.

    Raises ValueError for a file of another run, or of this one beyond `epochs`, and leaves it.
    """
    if path is None:
        return state, []
    if Path(path).suffix != ".npz":
        raise ValueError(f"checkpoint must be the name of an .npz file, got {str(path)!r}")
    if not Path(path).exists():
        return state, []
    state, metadata = checkpoints.load(path, state)
    if metadata.get("run") != run:
        stored = metadata.get("run") or {}
        differs = {name: (stored.get(name), run[name]) for name in run}
        differs = {name: pair for name, pair in differs.items() if pair[0] != pair[1]}
        raise ValueError(
            f"{path} belongs to another run: (there, here) differ in {differs}. It was left as "
            "it is; name another file, or move it away to start anew."
        )
    curve = metadata["curve"]
    if len(curve) > epochs:
        raise ValueError(f"{path} stands at epoch {len(curve)}, beyond epochs={epochs}")
    return state, curve
