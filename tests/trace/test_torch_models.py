"""PyTorch's models through torchax: gradients are autograd's, modules have their names."""

import functools
import re
import subprocess
import sys
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import semijax as sj

REASON = "semijax[torch] is installed with the tests for Python 3.11 only"
torch = pytest.importorskip("torch", reason=REASON)
torchax = pytest.importorskip("torchax", reason=REASON)

IDS = np.array([[3, 7, 11, 2]])
SIZES = {"vocab_size": 50, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}


class Double:
    """What is no module of PyTorch."""

    def __call__(self, x):
        return x * 2


class CNN(torch.nn.Module):
    def __init__(self):
        super().__init__()
        norm, pool = torch.nn.BatchNorm2d(3), torch.nn.MaxPool2d(2)
        self.features = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), norm, torch.nn.ReLU(), pool)
        self.head, self.double = torch.nn.Linear(27, 2), Double()

    def forward(self, x):
        return self.double(self.head(self.features(x).flatten(1)))


class Twice(torch.nn.Module):
    """A module that is used twice, by two names."""

    def __init__(self):
        super().__init__()
        self.layer = self.again = torch.nn.Linear(3, 3)

    def forward(self, x):
        return self.again(torch.sigmoid(self.layer(x))) + x


def encoder():
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return torch.nn.TransformerEncoder(layer, 2)


def hugging_face(name, config, **options):
    import transformers

    made = getattr(transformers, config)(**SIZES, **options, use_cache=False)
    return getattr(transformers, name)(made)


MAKE = {
    "encoder": encoder,
    "lstm": lambda: torch.nn.LSTM(4, 6, num_layers=2, batch_first=True),
    "cnn": CNN,
    "twice": Twice,
    "gpt2": lambda: hugging_face("GPT2LMHeadModel", "GPT2Config"),
    "llama": lambda: hugging_face(
        *("LlamaForCausalLM", "LlamaConfig"), num_key_value_heads=1, intermediate_size=16
    ),
    "bert": lambda: hugging_face(
        *("BertForMaskedLM", "BertConfig"), attn_implementation="eager", intermediate_size=16
    ),
}
SHAPES = {"encoder": (1, 5, 8), "lstm": (1, 5, 4), "cnn": (1, 1, 8, 8), "twice": (2, 3)}
MASKS = {"bert": {"attention_mask": np.ones((1, 4), int)}}  # or its code looks at values
EMBEDDINGS = {"gpt2": "*/wte", "llama": "*/embed_tokens", "bert": "*/word_embeddings"}


@functools.cache
def model(name):
    torch.manual_seed(0)
    made = MAKE[name]().eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made


def functions(name, keyword=None):
    """One number of what a model returns, in PyTorch and in JAX."""
    weights, run = torchax.extract_jax(model(name))

    def arguments(x, array):
        kwargs = {key: array(value) for key, value in MASKS.get(name, {}).items()}
        return ((), kwargs | {keyword: x}) if keyword else ((x,), kwargs)

    def number(output):
        return first(output)[0, ..., -1].sum()

    def in_torch(x):
        args, kwargs = arguments(x, torch.tensor)
        return number(model(name)(*args, **kwargs))

    def in_jax(x, parameters=MappingProxyType({})):
        return number(run({**weights, **parameters}, *arguments(jnp.asarray(x), jnp.array)))

    return in_torch, in_jax


def first(output):
    return output if hasattr(output, "shape") else first(output[0])


def floats(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def close(ours, expected):
    expected = np.asarray(expected)
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def flat(arrays):
    return np.concatenate([np.ravel(array) for array in arrays])


@pytest.mark.parametrize("name", MAKE)
def test_gradients_are_those_of_autograd(name):
    in_torch, in_jax = functions(name, "inputs_embeds" if name in EMBEDDINGS else None)
    x = floats(*SHAPES.get(name, (1, 4, 8)))
    tensor = torch.tensor(x, requires_grad=True)
    value = in_torch(tensor)
    theirs = dict(model(name).named_parameters())
    by_x, *by_parameters = torch.autograd.grad(
        value, [tensor, *theirs.values()], materialize_grads=True
    )
    parameters = {key: jnp.array(p.detach().numpy()) for key, p in theirs.items()}
    with sj.scopes(model(name)):
        gradient = sj.semiring_value_and_grad(in_jax, sj.SumProduct(), argnums=(0, 1))
        ours, (ours_by_x, ours_by_parameters) = gradient(x, parameters)
    close(ours, value.detach())
    close(ours_by_x, by_x)
    close(flat(ours_by_parameters[key] for key in theirs), flat(by_parameters))
    close(ours_by_x, jax.grad(in_jax)(x))


def record_outputs(name):
    """What each module returns, call by call, by the module's name in PyTorch; and the hooks."""
    outputs, kind = {}, type(model(name)).__name__

    def record(place, module, args, output):
        if first(output).requires_grad and not isinstance(module, torch.nn.Dropout):
            outputs.setdefault(place, []).append(first(output))

    hooks = []
    for dotted, module in model(name).named_modules():
        place = "/".join([kind, *dotted.split(".")]) if dotted else kind
        hooks.append(module.register_forward_hook(functools.partial(record, place)))
    return outputs, hooks


@pytest.mark.parametrize("name", MAKE)
def test_modules_are_sites_with_their_gradients(name):
    in_torch, in_jax = functions(name)
    x = IDS if name in EMBEDDINGS else floats(*SHAPES[name])
    outputs, hooks = record_outputs(name)
    value = in_torch(torch.tensor(x))
    for hook in hooks:
        hook.remove()
    sites = {}
    for place, calls in outputs.items():
        several = len(calls) > 1
        sites |= {f"{place}#{n}" if several else place: call for n, call in enumerate(calls, 1)}
    expected = torch.autograd.grad(value, list(sites.values()))
    with sj.scopes(model(name)):
        gradients = sj.site_grads(in_jax, sj.SumProduct(), list(sites))(x)
    assert set(gradients) == set(sites)
    for site, gradient in zip(sites, expected, strict=True):
        close(gradients[site], gradient)


@pytest.mark.parametrize("name", MAKE)
def test_scopes_are_modules_and_lines_are_the_models(name):
    _, in_jax = functions(name)
    kind = type(model(name)).__name__
    places = {f"{kind}.{dotted}".rstrip(".") for dotted, _ in model(name).named_modules()}
    with sj.scopes(model(name)):
        rows = [*sj.list_sites(in_jax)(IDS if name in EMBEDDINGS else floats(*SHAPES[name]))]
    inside = [row for row in rows if row.scope]
    assert len(inside) >= len(rows) - 4  # the argument, and what picks one number
    assert {row.scope.replace("/", ".") for row in inside} <= places
    assert not [row for row in rows if "torchax" in row.source]


def test_what_the_modules_compute_themselves_is_theirs():
    with sj.scopes(model("cnn")):
        names = sj.list_sites(functions("cnn")[1])(floats(1, 1, 8, 8)).names
    assert "CNN/mul" in names and "CNN:input" in names
    assert "CNN/features/0/conv_general_dilated" in names and "CNN/head/dot_general" in names


def test_a_model_that_is_used_twice():
    weights, run = torchax.extract_jax(model("twice"))

    def chain(x):
        return run(weights, (run(weights, (x,)),)).sum()

    with sj.scopes(model("twice")):
        names = sj.list_sites(chain)(jnp.ones((2, 3))).names
    assert [name for name in names if re.fullmatch(r"Twice(/layer)?#\d", name)] == [
        *("Twice/layer#1", "Twice/layer#2", "Twice#1"),
        *("Twice/layer#3", "Twice/layer#4", "Twice#2"),
    ]


def test_paths_of_gpt2():
    _, in_jax = functions("gpt2")
    wte = "GPT2LMHeadModel/transformer/wte"
    with sj.scopes(model("gpt2")):
        gradient = sj.site_grads(in_jax, sj.AbsMaxProduct(), wte)(IDS)[wte]
        paths = sj.top_paths(in_jax, 3, source="*/wte")(IDS)
        (through,) = sj.top_paths(in_jax, source="*/wte", through="*/h/1/mlp/act")(IDS)
        assert all(path.verify() < 1e-5 for path in (*paths, through))
    np.testing.assert_allclose(abs(paths[0].weight), gradient.max(), rtol=1e-5)
    scopes = {node.scope for node in through.nodes}
    assert {wte, *(f"GPT2LMHeadModel/transformer/h/1/mlp/{m}" for m in ("c_fc", "act"))} <= scopes


def test_flow_through_the_modules_of_llama():
    _, in_jax = functions("llama")
    layer, embeddings = "LlamaForCausalLM/model/layers/1", EMBEDDINGS["llama"]
    parts = {part: f"{layer}/self_attn/{part}_proj" for part in "qkv"}
    with sj.scopes(model("llama")):
        into = f"{layer}/input_layernorm"
        branches = sj.branch_flow(in_jax, sj.SumProduct(), into, parts)(IDS)
        gradients = sj.site_grads(in_jax, sj.SumProduct(), into, aggregate=-1)(IDS)
        through = sj.site_flow(
            in_jax, sj.AbsSumProduct(), [f"{layer}:input", parts["v"]], source=embeddings
        )(IDS)
        mass = sj.site_grads(in_jax, sj.AbsSumProduct(), embeddings)(IDS)
    close(sum(branches[into][part] for part in "qkv"), gradients[into])
    (total,) = (values.sum() for values in mass.values())
    by_values = through[parts["v"]].sum()
    into_layer = sum(through[name].sum() for name in through if name.startswith(f"{layer}:input"))
    np.testing.assert_allclose(into_layer, total, rtol=1e-4)  # there is no way around a layer
    assert 0 < by_values < total


def test_heads_and_tokens_of_bert():
    _, in_jax = functions("bert")
    attention = "BertForMaskedLM/bert/encoder/layer/1/attention/self"
    context = f"{attention}/transpose#5"  # before the heads are merged
    by, source = ("token", "head"), EMBEDDINGS["bert"]
    with sj.scopes(model("bert")):
        per_head = sj.site_flow(in_jax, sj.AbsSumProduct(), context, source=source, by=by)(IDS)
        merged = sj.site_flow(in_jax, sj.AbsSumProduct(), attention, source=source, by="token")(IDS)
    assert per_head[context].shape == (4, 2)
    close(per_head[context].sum(1), merged[attention])


def test_nothing_is_left_behind():
    class Failing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(x) + None

    failing, x = Failing(), jnp.array(floats(2, 3))
    before = Failing.forward, torch.nn.Linear.forward
    weights, run = torchax.extract_jax(failing)
    with sj.scopes(failing), sj.scopes(model("twice")):
        assert torch.nn.Linear.forward is not before[1]
        with pytest.raises(TypeError, match="NoneType"):
            run(weights, (x,))
        rows = sj.list_sites(functions("twice")[1])(x)
        assert {row.scope for row in rows} == {"", "Twice", "Twice/layer"}
        assert failing.layer(torch.ones(2, 3)).shape == (2, 3)  # PyTorch itself
    assert (Failing.forward, torch.nn.Linear.forward) == before


def test_a_model_in_another_object():
    class Wrapper:
        def __init__(self):
            self.encoder = model("twice")
            self.weights, self.run = torchax.extract_jax(self.encoder)

        def __call__(self, x):
            return jnp.tanh(self.run(self.weights, (x,)))

    wrapper = Wrapper()
    with sj.scopes(wrapper):
        rows = sj.list_sites(lambda x: wrapper(x).sum())(jnp.ones((2, 3)))
    scopes = {"Wrapper", "Wrapper/encoder", "Wrapper/encoder/layer"}
    assert {row.scope for row in rows if row.scope} == scopes


def test_pytorch_is_not_imported():
    program = """
import sys
import jax.numpy as jnp, semijax as sj
class Layer:
    def __call__(self, x):
        return jnp.tanh(x)
layer = Layer()
with sj.scopes(layer):
    print(sj.list_sites(layer)(jnp.ones(2)).names[-1], *{"torch", "torchax"} & sys.modules.keys())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("Layer\n", 0), done.stderr
