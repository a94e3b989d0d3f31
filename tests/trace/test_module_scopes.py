"""``sj.scopes``: what the modules of models are called, and that nothing of it stays behind."""

import contextlib
import copy
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import semijax as sj

X = jnp.array([0.3, -0.8, 0.5])


def layers_of(fun, *args, kind="tanh"):
    """The scopes of the equations of one kind, in the order of evaluation."""
    return [row.scope for row in sj.list_sites(fun)(*args) if row.primitive == kind]


class Layer:
    def __call__(self, x):
        return jnp.tanh(x)


class Chain:
    def __init__(self, *layers):
        self.layers = list(layers)

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Pair:
    def __init__(self):
        self.left, self.right = Layer(), Layer()

    def __call__(self, x):
        return self.right(self.left(x))


class Base:
    def __init__(self):
        self.first = self.again = Layer()
        self.rest = {"a": (Layer(), [Layer()])}

    def encode(self, x):
        return self.first(x)

    def __call__(self, x):
        a, (b,) = self.rest["a"]
        return b(a(self.again(jax.jit(self.encode)(x))))


class Derived(Base):
    @property
    def offset(self):
        return self.rest["a"][0](jnp.ones(3))

    def __call__(self, x):
        return super().__call__(x) + self.offset


TWICE = ["first", "first", "rest/a/0", "rest/a/1/0"]
PLAIN = {
    "a list": (Chain(Layer(), Layer()), ["Chain/layers/0", "Chain/layers/1"]),
    "modules in modules": (Chain(Chain(Layer())), ["Chain/layers/0/layers/0"]),
    "containers, one used twice": (Base(), [f"Base/{name}" for name in TWICE]),
    "a chain of super()": (Derived(), [f"Derived/{name}" for name in (*TWICE, "rest/a/0")]),
}


@pytest.mark.parametrize(("model", "expected"), PLAIN.values(), ids=PLAIN)
def test_modules_are_named_by_their_place(model, expected):
    def plain(x):
        return model(x)

    funs = {
        "plain": plain,
        "jit": lambda x: jax.jit(lambda x: model(x))(x),
        "checkpoint": lambda x: jax.checkpoint(lambda x: model(x))(x),
        "vmap": lambda x: jax.vmap(plain)(x[None]),
        "scan": lambda x: jax.lax.scan(lambda c, _: (model(c), None), x, None, length=2)[0],
        "a copy": lambda x: copy.deepcopy(model)(x),
    }
    with sj.scopes(model):
        for case, fun in funs.items():
            assert layers_of(fun, X) == expected, case


def test_parts_that_a_function_calls_have_their_full_names():
    model = Chain(Layer(), Layer())
    with sj.scopes(model):
        assert layers_of(lambda x: model.layers[1](x), X) == ["Chain/layers/1"]


def equinox_models():
    eqx = pytest.importorskip("equinox")

    class Block(eqx.Module):
        up: eqx.nn.Linear
        down: eqx.nn.Linear

        def __init__(self, key):
            self.up, self.down = (eqx.nn.Linear(3, 3, key=k) for k in jax.random.split(key))

        def encode(self, x):
            return self.up(x)

        def __call__(self, x):
            return self.down(self.encode(x))

    class Net(eqx.Module):
        blocks: list

        def __call__(self, x):
            for block in self.blocks:
                x = block(x)
            return x

    class Scanned(eqx.Module):
        block: Block

        def __call__(self, x):
            arrays, rest = eqx.partition(self.block, eqx.is_array)
            step = lambda x, part: (eqx.combine(part, rest)(x), None)  # noqa: E731
            return jax.lax.scan(step, x, arrays)[0]

    keys = jax.random.split(jax.random.key(0))
    net, scanned = Net([Block(key) for key in keys]), Scanned(eqx.filter_vmap(Block)(keys))
    names = [f"Net/blocks/{n}/{part}" for n in range(2) for part in ("up", "down")]
    arrays, static = eqx.partition(net, eqx.is_array)
    run = eqx.filter_jit(lambda model, x: model(x))
    yield "called", net, lambda x: net(x), names
    yield "filter_jit", net, lambda x: run(net, x), names
    yield "combined", net, lambda x: eqx.combine(arrays, static)(x), names
    yield "vmap", net, lambda x: jax.vmap(net)(x[None]), names
    yield "scanned", scanned, lambda x: scanned(x), ["Scanned/block/up", "Scanned/block/down"]


def nnx_models():
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.blocks = nnx.List([nnx.Linear(3, 3, rngs=rngs), nnx.Linear(3, 3, rngs=rngs)])
            self.head = nnx.Sequential(nnx.Linear(3, 1, rngs=rngs), nnx.relu)

        def __call__(self, x):
            for block in self.blocks:
                x = block(x)
            return self.head(x)

    net = Net(nnx.Rngs(0))
    definition, state = nnx.split(net)
    names = ["Net/blocks/0", "Net/blocks/1", "Net/head/layers/0"]
    run = nnx.jit(lambda model, x: model(x))
    yield "called", net, lambda x: net(x), names
    yield "merged", net, lambda x: nnx.merge(definition, state)(x), names
    yield "nnx.jit", net, lambda x: run(nnx.merge(definition, state, copy=True), x), names


@pytest.mark.parametrize("models", [equinox_models, nnx_models])
def test_models_of_libraries(models):
    for case, model, fun, expected in models():
        outside = fun(X)
        with sj.scopes(model):
            np.testing.assert_array_equal(fun(X), outside)
            jax.clear_caches()  # what was traced outside has no names
            assert layers_of(fun, X, kind="dot_general") == expected, case


def test_the_classes_are_as_before():
    before = Layer.__call__, Chain.__call__, Base.encode
    with sj.scopes(Chain(Layer())), sj.scopes(Base()):
        assert Layer.__call__ is not before[0]
        assert Layer.__call__.__qualname__ == before[0].__qualname__
    with contextlib.suppress(KeyError), sj.scopes(Chain(Layer())):
        raise KeyError
    assert (Layer.__call__, Chain.__call__, Base.encode) == before


def test_an_error_leaves_its_scopes():
    failing = Chain(Layer(), None)
    with sj.scopes(failing):
        with pytest.raises(TypeError, match="not callable"):
            failing(X)
        assert layers_of(lambda x: failing.layers[0](x), X) == ["Chain/layers/0"]


def test_threads_do_not_share_what_is_running():
    model, seen = Chain(Layer(), Layer()), []
    with sj.scopes(model):
        work = lambda: seen.append(layers_of(lambda x: model(x), X))  # noqa: E731
        threads = [threading.Thread(target=work) for _ in range(3)]
        for step in (threading.Thread.start, threading.Thread.join):
            list(map(step, threads))
    assert seen == [["Chain/layers/0", "Chain/layers/1"]] * 3


@pytest.mark.parametrize("model", [None, 3, "net", {}, [], np.ones(2), lambda x: x, Layer])
def test_what_has_no_modules_is_refused(model):
    with pytest.raises(TypeError, match="expects a model"), sj.scopes(model):
        pass


def test_models_and_modules_that_others_would_be_taken_for():
    """The root's class used again inside, two models at once, a module that is not the model's."""
    again = Chain(Chain(Layer()), Chain(Layer()))
    with sj.scopes(again):
        assert layers_of(lambda x: again.layers[1](x), X) == ["Chain/layers/1/layers/0"]
    one, other = Pair(), Chain(Layer())
    with sj.scopes(one), sj.scopes(other):
        assert layers_of(lambda x: one.left(x), X) == ["Pair/left"]
    foreign = Layer()
    with sj.scopes(one):
        assert layers_of(lambda x: one(foreign(x)), X) == ["Layer", "Pair/left", "Pair/right"]


def test_private_and_slotted_modules():
    class Slotted:
        __slots__ = ("_inner", "outer")

        def __init__(self):
            self._inner, self.outer = Layer(), Layer()

        def __call__(self, x):
            return self.outer(self._inner(x))

    model = Slotted()
    with sj.scopes(model):
        assert layers_of(model, X) == ["Slotted/_inner", "Slotted/outer"]


def test_contexts_need_not_end_in_turn():
    before = Layer.__call__
    one, other = sj.scopes(Chain(Layer())), sj.scopes(Chain(Layer()))
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert Layer.__call__ is not before
    other.__exit__(None, None, None)
    assert Layer.__call__ is before


@pytest.mark.parametrize("bad", [jnp.ones(3), jax.jit(jnp.sin), 3, {}], ids=range(4))
def test_what_is_no_model_is_refused(bad):
    with pytest.raises(TypeError, match="expects a model"), sj.scopes(bad):
        pass


class TorchLike:
    """As ``torch.nn.Module``: children in a private dict, ``forward`` behind ``__call__``."""

    def __init__(self, **children):
        self.__dict__["_parameters"] = {"weight": np.ones(3), "0": np.ones(3)}
        self.__dict__["_modules"] = dict(children)

    def __getattr__(self, name):
        return self.__dict__["_modules"][name]

    def __call__(self, x):
        return self.forward(x)


class TorchLayer(TorchLike):
    def forward(self, x):
        return jnp.tanh(x)


class TorchList(TorchLike):
    def __iter__(self):
        return iter(self._modules.values())


class TorchNet(TorchLike):
    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(x).sum()


class OfItsClass(Chain):
    """A module that enters a scope of its class by itself."""

    def __call__(self, x):
        with jax.named_scope(type(self).__name__):
            return super().__call__(x)


class CallingByNumber(Chain):
    """A module that enters a scope for each of those it calls, as Penzai's ``Sequential``."""

    def __call__(self, x):
        for n, layer in enumerate(self.layers):
            with jax.named_scope(str(n)):
                x = layer(x)
        return x


def test_there_is_one_name_for_each_module():
    net = TorchNet(layers=TorchList(**{"0": TorchLayer(), "1": TorchLayer()}), head=TorchLayer())
    with sj.scopes(net):
        assert layers_of(net, X) == ["TorchNet/layers/0", "TorchNet/layers/1", "TorchNet/head"]
        flow = sj.component_flow(net, sj.AbsSumProduct(), depth=2)(X)
        assert list(flow) == ["TorchNet/layers", "TorchNet/head", "TorchNet"]


def test_what_a_library_calls_a_module_is_no_second_name():
    net = OfItsClass(Layer(), OfItsClass(Layer()))
    assert layers_of(net, X) == ["OfItsClass", "OfItsClass/OfItsClass"]
    with sj.scopes(net):
        names = ["OfItsClass/layers/0", "OfItsClass/layers/1/layers/0"]
        assert layers_of(net, X) == names
    net = CallingByNumber(Layer(), CallingByNumber(Layer()), jnp.tanh)
    assert layers_of(net, X) == ["0", "1/0", "2"]
    with sj.scopes(net):
        names = ["layers/0", "layers/1/layers/0", "2"]  # a function has no place
        assert layers_of(net, X) == [f"CallingByNumber/{name}" for name in names]


def test_private_containers_with_the_same_names_keep_theirs():
    class Net:
        def __init__(self):
            self._layers, self._heads, self._numbers = [Layer()], [Layer()], [1, 2]

        def __call__(self, x):
            return self._heads[0](self._layers[0](x))

    net = Net()
    with sj.scopes(net):
        assert layers_of(net, X) == ["Net/0", "Net/_heads/0"]


def test_modules_that_name_themselves_have_no_second_name(keras_on_jax):
    layers = keras_on_jax.layers
    dense = [layers.Dense(3, "tanh", name=name) for name in ("up", "down")]
    model = keras_on_jax.Sequential([keras_on_jax.Input((3,)), *dense], name="sequential")
    names = ["sequential/up", "sequential/down"]
    assert layers_of(lambda x: model(x[None]), X) == names
    with sj.scopes(model):
        assert layers_of(lambda x: model(x[None]), X) == names
    mixed = Chain(model, Layer())
    with sj.scopes(mixed):
        names = ["Chain/sequential/up", "Chain/sequential/down", "Chain/layers/1"]
        assert layers_of(lambda x: mixed(x[None]), X) == names


def test_linen_in_another_model_has_no_second_name():
    linen = pytest.importorskip("flax.linen")

    class Wrapped:
        def __init__(self):
            self.inner = linen.Dense(2, name="dense")
            self.params = self.inner.init(jax.random.key(0), X)

        def __call__(self, x):
            return self.inner.apply(self.params, x)

    model = Wrapped()
    with sj.scopes(model):
        assert layers_of(model, X, kind="dot_general") == ["Wrapped/dense"]


def test_who_asks_for_a_module_of_a_model_without_names_is_told():
    model = Chain(Layer())
    for call in (
        sj.site_grads(lambda x: model(x).sum(), sj.SumProduct(), "Chain/layers/0"),
        sj.top_paths(lambda x: model(x).sum(), through="Chain/layers/0"),
        sj.site_flow(lambda x: model(x).sum(), sj.SumProduct(), "*tanh", source="*/layers/0"),
    ):
        with pytest.raises(ValueError, match=r"None of its modules has a name.*semijax.scopes"):
            call(X)
        with sj.scopes(model):
            call(X)
