"""Statistics over many examples: a function streamed over batches, its outputs reduced to means."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import math
import os
import pathlib
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from semijax import checks
from semijax.study.means import Label, Moments, Study, read_json, write_json
from semijax.study.padding import Exact, Padded, Padding, check_takes_mask, check_tolerance

Reducers = Mapping[str, Callable[[Any, Any], Any]]

ALL = "all"
"""The group of all observations where there is no ``group_by``."""


def run_study(
    fn: Callable[..., Any],
    batches: Iterable[Any],
    *,
    reducers: Reducers,
    group_by: Callable[[Any], Any] | None = None,
    cluster_by: Callable[[Any], Any] | None = None,
    progress: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 100,
    pad: Any = None,
    axis: int = 0,
    buckets: Sequence[int] | None = None,
    pad_tolerance: float = 0.01,
    jit: bool = True,
    keep: bool = False,
    provenance: Mapping[str, Any] | None = None,
) -> Study:
    """Compute means, with standard errors, of a function's outputs for batches of any lengths.

    ``jax.jit(fn)`` runs on one batch after another, and compiles once for every new shape. A fresh
    lambda compiles anew in every study, a named function only once.

    **Padding.** By default nothing is padded. Where batches have many lengths, ``pad=0`` pads them
    to a few: then ``fn`` compiles once for each of these and is called as ``fn(batch, mask=mask)``.
    The mask, bool ``[padded length]``, is False where the batch was padded. Apart from ``fn``,
    nothing in a study sees the padding: reducers get the output without it. To check that ``fn``
    disregards it, the first batch that is padded runs a second time without padding, and the study
    stops if the two results differ by more than ``pad_tolerance``. That compiles once more, and
    calls the reducers twice.

    **Standard errors** assume that examples are independent, but not the numbers of one example:
    they are clustered by example (``Moments.stderr`` has the formula). A batch is one example,
    unless ``cluster_by`` says which examples it holds.

    With a ``checkpoint``, a study may be killed at any moment and started again: it goes on after
    the last batch it has written down, and ends with the numbers of one that was never killed. A
    finished one returns without calling ``fn``; given more batches, it goes on with these.

    Args:
        fn: a function of one batch, and with ``pad`` of a ``mask``, that returns any pytree of
            arrays. With ``pad``, each axis of these must either grow at its end by as many
            positions as the batch, or keep its length.
        batches: any iterable of pytrees of arrays: sentences, or groups of them.
        reducers: a mapping from the name of a statistic to a function of ``(output, batch)``: the
            output of ``fn`` for the batch, and the batch itself, both without padding and on the
            host as NumPy arrays. The function returns a number, an array of numbers, each an
            observation, or a dict of these, whose statistics are called ``"name/key"``. NaN and
            masked elements of a masked array are not observations; the study counts them as
            dropped.
        group_by: a function of the batch as given that returns a label (str, int or bool), or an
            array of labels for the observations of each statistic: as many, or of the shape of
            their first axes, so that labels ``[tokens]`` do for observations ``[tokens, layers]``.
            By default all are in one group, ``"all"``.
        cluster_by: a function of the batch as given that returns the number or name of its example
            (int, str or bool), or an array of them, as for ``group_by``. Each batch has examples
            of its own: names are not compared between batches.
        progress: whether to show a bar (of tqdm).
        checkpoint: the path of a file to write the state to, and to resume from if it exists. It
            grows by 16 bytes a batch. Two studies must not share one.
        checkpoint_every: after how many batches to write it. It is written at the end too, even
            if that is an exception.
        pad: what to pad with at the end of ``axis``, a pytree prefix of a batch: numbers, or None
            where a leaf is not to be padded, such as a label. A leaf without the axis never is.
            Boolean leaves, such as your own masks, are padded with False (with ``pad=True``, True).
        axis: the axis in which leaves differ in length.
        buckets: the lengths to pad to, increasing; powers of two from 8 by default.
        pad_tolerance: how much padding may change the observations of a statistic, in the batch
            where the two runs are compared: ``Σ |change|`` as a share of ``Σ |observation|``, where
            each observation counts as at least a thousandth of the largest one of all statistics.
            The tolerance is for rounding; ``math.inf`` allows everything.
        jit: whether to compile ``fn``. Set it to False if ``fn`` compiles all of its work itself,
            for example by passing a model's parameters to a jitted function that several studies
            share.
        keep: whether to keep every observation, and not only the means. Then a checkpoint grows by
            about 60 bytes for each.
        provenance: further facts to record about where the numbers come from, such as the model's
            name. A checkpoint knows functions by name only, so use this to tell changed functions
            apart.

    Returns:
        A ``Study``, accumulated in float64.

    Raises:
        TypeError: if an argument is of the wrong type, ``fn`` takes no mask where there is padding,
            a reducer does not return real numbers, or labels are not all str, all int or all bool.
        ValueError: if there are no batches; padding changes a number, or cannot be told from data
            in an output; leaves to pad differ in length or are longer than the last bucket; labels
            do not fit the observations; outputs differ in provenance; or the checkpoint is of
            another study, of other batches or of another layout.
        FloatingPointError: if an observation is infinite, such as the log of 0, since the mean
            would be infinite too; a reducer drops an observation by returning NaN. Also if moments
            overflow float64.
        ModuleNotFoundError: if there is to be a bar, but tqdm is missing.

    Example:
        >>> import jax.numpy as jnp, numpy as np, semijax as sj
        >>> def from_the_mean(x, mask):
        ...     return x - jnp.mean(x, where=mask)
        >>> study = sj.run_study(
        ...     from_the_mean,
        ...     [np.arange(3.0), np.arange(5.0), np.array([1.0, np.nan])],
        ...     reducers={"distance": lambda output, batch: abs(output)},
        ...     pad=0,
        ...     progress=False,
        ... )
        >>> print(study)
        from_the_mean over 3 batches
        statistic  group  count  examples  mean  stderr  dropped  dropped_examples
        distance   all        8         2     1    0.25        2                 1
        stderr: clustered by example; dropped: NaN, in no mean
        >>> study.provenance["compiled"]  # all were padded to 8
        1
    """
    checks.check_callable(fn)
    _check_reducers(reducers)
    for labelling in (group_by, cluster_by):
        if labelling is not None:
            checks.check_callable(labelling)
    if isinstance(batches, (str, Mapping)) or not hasattr(batches, "__iter__"):
        raise TypeError(f"Expected an iterable of batches, got {type(batches).__name__}.")
    checks.check_positive("checkpoint_every", checkpoint_every)
    padding = Padding.checked(pad, axis, buckets)
    tolerance = check_tolerance(pad_tolerance)
    if padding.pads:
        check_takes_mask(fn)
    settings = _settings(
        fn, reducers, group_by, cluster_by, padding, keep, {} if provenance is None else provenance
    )
    path = None if checkpoint is None else pathlib.Path(checkpoint)
    state = _State(settings, Study({}, 0, settings))
    if path is not None:
        if path.exists():
            state = _resumed(path, settings)
        else:
            state.write(path)  # what cannot be written fails now, not hours later
    done, seen = state.study.batches, 0
    compiled = jax.jit(fn) if jit else fn
    run = Padded(compiled, padding, tolerance) if padding.pads else Exact(compiled)
    try:
        with _bar(batches, progress) as stream:
            for batch in stream:
                # Each state is new, and assigned at once: an interrupt leaves the last one whole.
                try:
                    if seen < done:
                        _check_seen(state, seen, batch)
                    else:
                        state = _after(state, batch, run, reducers, group_by, cluster_by, keep)
                except Exception as error:
                    error.add_note(f"In batch {seen} of the study.")
                    raise
                seen += 1
                if path is not None and seen > done and seen % checkpoint_every == 0:
                    state.write(path)
    finally:
        if path is not None and state.study.batches > done:
            state.write(path)
    if not seen:
        raise ValueError("There are no batches. An iterator that was used up yields none.")
    if seen < done:
        raise ValueError(f"The checkpoint {path} is of {done} batches, there are only {seen}.")
    return state.study


@dataclasses.dataclass(frozen=True)
class _State:
    """Everything that it takes to go on with a study."""

    settings: Mapping[str, Any]
    study: Study
    digests: str = ""  # of all batches, 16 characters each
    shapes: tuple[str, ...] = ()  # digests of those that were compiled

    def write(self, path: pathlib.Path) -> None:
        fields = {"settings": self.settings, "digests": self.digests, "shapes": self.shapes}
        write_json(path, {**fields, "study": self.study.to_json()})

    @classmethod
    def from_json(cls, data: Any) -> _State:
        study = Study.from_json(data["study"])
        return cls(data["settings"], study, data["digests"], tuple(data["shapes"]))


def _after(
    state: _State,
    batch: Any,
    run: Exact | Padded,
    reducers: Reducers,
    group_by: Callable[[Any], Any] | None,
    cluster_by: Callable[[Any], Any] | None,
    keep: bool,
) -> _State:
    """Return the state after one more batch."""
    digest = _digest(batch)
    host = jax.device_get(batch)
    observe = functools.partial(_observations, reducers, host)
    ran_on, output, numbers = run(batch, observe)
    signature = jax.tree.structure(ran_on), [jax.typeof(leaf) for leaf in jax.tree.leaves(ran_on)]
    shapes = tuple(dict.fromkeys([*state.shapes, _short(repr(signature).encode())]))
    provenance = {**state.study.provenance, "compiled": len(shapes)}
    for key, value in _provenance_of(output).items():
        # Numbers of two semirings have no mean in common.
        if provenance.setdefault(key, value) != value:
            raise ValueError(
                f"The output's provenance says {key} is {value!r}, the study's {provenance[key]!r}."
            )
    groups = _labels("groups", ALL if group_by is None else group_by(host))
    _check_one_type([*groups.flat, *_groups(state.study)])
    examples = _numbered(_labels("examples", 0 if cluster_by is None else cluster_by(host)))
    observed = [*_observed(numbers, groups, examples)]
    statistics = _added(state.study.statistics, observed, groups)
    kept = state.study.observations
    if keep:
        number = state.study.batches
        kept += tuple(row for each in observed for row in each.rows(number))
    study = Study(statistics, state.study.batches + 1, provenance, kept)
    return _State(state.settings, study, state.digests + digest, shapes)


def _observations(reducers: Reducers, batch: Any, output: Any) -> dict[str, np.ndarray]:
    """Return the observations of every statistic, as arrays of float64; NaN is none."""
    found: dict[str, np.ndarray] = {}
    for name, reducer in reducers.items():
        value = reducer(output, batch)
        parts = (
            [(f"{name}/{key}", part) for key, part in value.items()]
            if isinstance(value, Mapping)
            else [(name, value)]
        )
        for statistic, part in parts:
            if statistic in found:
                raise ValueError(f"Two statistics are called {statistic!r}.")
            found[statistic] = _numbers(statistic, part)
    return found


def _numbers(statistic: str, value: Any) -> np.ndarray:
    array = np.asanyarray(value)
    if not any(jnp.issubdtype(array.dtype, kind) for kind in (bool, jnp.integer, jnp.floating)):
        raise TypeError(f"Reducers must return real numbers, got {value!r} for {statistic!r}.")
    # What a masked array masks is no observation either.
    numbers = np.ma.filled(array.astype(np.float64), np.nan)
    if infinite := int(np.isinf(numbers).sum()):
        raise FloatingPointError(
            f"{infinite} of {numbers.size} observations of {statistic!r} are infinite, and so "
            "would be the mean. If they are not observations, let the reducer return NaN for them: "
            "the study counts what it drops."
        )
    return numbers


def _labels(what: str, found: Any) -> np.ndarray:
    """Return labels as an array of str, int and bool."""
    labels = np.asarray(found, dtype=object)
    plain = np.empty(labels.shape, object)
    for place, label in np.ndenumerate(labels):
        plain[place] = label.item() if isinstance(label, np.generic) else label
        if type(plain[place]) not in (str, int, bool):
            raise TypeError(f"The labels of {what} must be str, int or bool, got {found!r}.")
    return plain


def _groups(study: Study) -> list[Label]:
    return [label for groups in study.statistics.values() for label in groups]


def _check_one_type(labels: Iterable[Any]) -> None:
    kinds = sorted({type(label).__name__ for label in labels})
    if len(kinds) > 1:  # 1 and True would be one key of a dict
        raise TypeError(f"The labels of groups must be of one type, got {' and '.join(kinds)}.")


@dataclasses.dataclass(frozen=True)
class _Observed:
    """The observations of a statistic in a batch; NaN is none.

    Attributes:
        statistic: its name.
        values: float64 ``[n]``.
        groups: the label of each.
        examples: the number of each one's example.
    """

    statistic: str
    values: np.ndarray
    groups: np.ndarray
    examples: np.ndarray

    def rows(self, batch: int) -> list[tuple[str, Label, int, int, float]]:
        """Return a row for each value that is a number, see ``Study``."""
        columns = self.groups, self.examples.tolist(), self.values.tolist()
        return [
            (self.statistic, group, batch, example, value)
            for group, example, value in zip(*columns, strict=True)
            if not math.isnan(value)
        ]


def _observed(
    numbers: Mapping[str, np.ndarray], labels: np.ndarray, examples: np.ndarray
) -> Iterator[_Observed]:
    for name, values in numbers.items():
        of_value = _for_each("group_by", labels, name, values)
        yield _Observed(
            name, values.ravel(), of_value, _for_each("cluster_by", examples, name, values)
        )


def _added(
    statistics: Mapping[str, Mapping[Label, Moments]],
    observed: Iterable[_Observed],
    labels: np.ndarray,
) -> dict[str, dict[Label, Moments]]:
    """Return the statistics with more observations added to their groups."""
    added = {name: dict(groups) for name, groups in statistics.items()}
    for each in observed:
        groups = added.setdefault(each.statistic, {})
        # A batch without observations in a group that it names is in the table, too.
        for label in dict.fromkeys(labels.flat):
            own = each.groups == label
            more = Moments.of(each.values[own], each.examples[own])
            total = groups.get(label, Moments()).merged(more)
            if not all(map(math.isfinite, (total.centre, total.squares, total.products))):
                raise FloatingPointError(f"The moments of {each.statistic!r} overflow float64.")
            groups[label] = total
    return added


def _numbered(labels: np.ndarray) -> np.ndarray:
    """Number the labels, equal ones alike."""
    keys = [(type(label), label) for label in labels.flat]  # 1 and True are two
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], int).reshape(labels.shape)


def _for_each(what: str, labels: np.ndarray, name: str, values: np.ndarray) -> np.ndarray:
    """Return a vector of labels, one for each observation."""
    if labels.shape == values.shape[: labels.ndim]:
        spread = labels.reshape(labels.shape + (1,) * (values.ndim - labels.ndim))
        return np.broadcast_to(spread, values.shape).ravel()
    if labels.size == values.size:
        return labels.ravel()
    raise ValueError(
        f"{what} must return one label, or one for each of the {values.size} observations of "
        f"{name!r}, got {labels.size}."
    )


def _provenance_of(output: Any) -> dict[str, Any]:
    """Collect the provenance of an output's nodes; a list where they differ."""
    found: dict[str, list[Any]] = {}
    for node in jax.tree.leaves(output, is_leaf=lambda node: hasattr(node, "provenance")):
        for key, value in _plain(getattr(node, "provenance", {})).items():
            values = found.setdefault(key, [])
            if value not in values:
                values.append(value)
    return {key: values[0] if len(values) == 1 else values for key, values in found.items()}


def _settings(
    fn: Any,
    reducers: Reducers,
    group_by: Any,
    cluster_by: Any,
    padding: Padding,
    keep: bool,
    own: Any,
) -> dict[str, Any]:
    """Return the settings that a study must share with the one it resumes."""
    from semijax import __version__  # set only when the package has imported this module

    settings = {
        "semijax": __version__,
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "function": _name(fn),
        "reducers": sorted(reducers),
        "group_by": _name(group_by),
        "cluster_by": _name(cluster_by),
        "keep": bool(keep),
        **dataclasses.asdict(padding),
    }
    if not isinstance(own, Mapping):
        raise TypeError(f"provenance must be a mapping, got {own!r}.")
    if taken := sorted(own.keys() & {*settings, "compiled"}):
        raise ValueError(f"A study itself says what these are in provenance: {', '.join(taken)}.")
    return _plain({**settings, **own})


def _plain(value: Any) -> Any:
    """Convert a value to JSON's types; what JSON lacks, such as infinity, becomes its repr."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if value is None or isinstance(value, (str, int)):
        return value
    return value if isinstance(value, float) and math.isfinite(value) else repr(value)


def _name(fun: Any) -> str | None:
    return None if fun is None else getattr(fun, "__qualname__", type(fun).__name__)


def _check_seen(state: _State, number: int, batch: Any) -> None:
    if _digest(batch) != state.digests[16 * number : 16 * (number + 1)]:
        raise ValueError(
            f"Batch {number} is not the one that the checkpoint has seen in its place. To resume, "
            "the iterable must yield the same batches in the same order."
        )


def _digest(batch: Any) -> str:
    leaves, tree = jax.tree.flatten_with_path(batch)
    parts = [str(tree).encode()]
    for path, leaf in leaves:
        array = np.asarray(leaf)
        if array.dtype != bool and not jnp.issubdtype(array.dtype, jnp.number):
            where = jax.tree_util.keystr(path)
            raise TypeError(f"batch{where} of type {type(leaf)} is not a valid JAX type.")
        parts += [f"{array.dtype} {array.shape}".encode(), array.tobytes()]
    return _short(*parts)


def _short(*parts: bytes) -> str:
    return hashlib.blake2b(b"\0".join(parts), digest_size=8).hexdigest()


def _bar(batches: Iterable[Any], progress: bool) -> Any:
    if not progress:
        return contextlib.nullcontext(batches)
    try:
        from tqdm.auto import tqdm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "The progress bar needs tqdm: pip install 'semijax[study]', or pass progress=False."
        ) from error
    return tqdm(batches, unit="batch")


def _resumed(path: pathlib.Path, settings: Mapping[str, Any]) -> _State:
    keys = {field.name for field in dataclasses.fields(_State)}
    state = read_json(path, "a checkpoint of run_study", keys, _State.from_json)
    differences = [
        f"{key} was {state.settings.get(key)!r} and is {settings.get(key)!r}"
        for key in dict.fromkeys([*state.settings, *settings])
        if state.settings.get(key) != settings.get(key)
    ]
    if differences:
        raise ValueError(
            f"The checkpoint {path} is of another study: {'; '.join(differences)}. Remove it, or "
            "give another path."
        )
    return state


def _check_reducers(reducers: Any) -> None:
    if not isinstance(reducers, Mapping) or not reducers:
        raise TypeError(
            f"reducers must be a non-empty mapping from names to functions, got {reducers!r}."
        )
    for name, reducer in reducers.items():
        if not isinstance(name, str):
            raise TypeError(f"The name of a reducer must be str, got {name!r}.")
        checks.check_callable(reducer)
