"""Names of modules."""

import flax.linen as nn
import pytest

from semijax.trace import scope_names


class Linen(nn.Module):
    """A module with methods of its own."""

    def method(self):
        return self.helper()

    def helper(self):
        return 0


SCOPES = ["", "net/layer_0/attention/key", "net/layer_0/mlp/up", "net/layer_1/attention/key"]


def test_enclosing():
    assert scope_names.enclosing("a/b/c") == ["a", "a/b", "a/b/c"]
    assert scope_names.enclosing("") == []


@pytest.mark.parametrize(
    ("pattern", "matched"),
    {
        "net": SCOPES[1:],
        "*/attention/key": [SCOPES[1], SCOPES[3]],
        "*/attention": [SCOPES[1], SCOPES[3]],
        "net/layer_0": SCOPES[1:3],
        "*/layer_[1-3]*": [SCOPES[3]],
        "attention": [],
        "*atten": [],
        "*": SCOPES[1:],
    }.items(),
)
def test_patterns(pattern, matched):
    assert list(filter(scope_names.matcher(pattern), SCOPES)) == matched


ITERATIONS = ["net/layers[0]/mlp", "net/layers[1]/mlp", "net/layers[10]/mlp", "net/layer_1"]


@pytest.mark.parametrize(
    ("pattern", "matched"),
    {
        "net/layers[1]": [ITERATIONS[1]],
        "*/layers[1]/mlp": [ITERATIONS[1]],
        "*[10]/*": [ITERATIONS[2]],
        "net/layers": ITERATIONS[:3],
        "*/layers/mlp": ITERATIONS[:3],
        "*/layer_[12]": [ITERATIONS[3]],
        "*/mlp": ITERATIONS[:3],
        "net/layers[2]": [],
    }.items(),
)
def test_patterns_of_iterations(pattern, matched):
    assert list(filter(scope_names.matcher(pattern), ITERATIONS)) == matched


def test_scopes_without_their_iterations():
    assert scope_names.without_iterations("a[0]/b[1, 12]/c") == "a/b/c"
    assert scope_names.without_iterations("[0]['w']/a[x]") == "['w']/a[x]"


def test_a_pattern_that_matches_nothing_names_the_nearest():
    with pytest.raises(ValueError, match=r"nearest are 'net/layer_0/attention/key'"):
        scope_names.check_pattern("*/layer_0/atention/key", SCOPES)
    with pytest.raises(ValueError, match="'net/layer_0/mlp/up'"):
        scope_names.check_pattern("mlp/upp", SCOPES)
    with pytest.raises(ValueError, match=r"The function has no scopes.*with semijax.scopes"):
        scope_names.check_pattern("mlp", [""])


def test_shorten():
    assert scope_names.shorten("a/b/c", 2) == "a/b"
    assert scope_names.shorten("a", 2) == "a"
    assert scope_names.shorten("a/b", None) == "a/b"


def test_within():
    assert scope_names.is_within("a/b", "a") and scope_names.is_within("a", "a")
    assert scope_names.is_within("a", "")
    assert not scope_names.is_within("ab", "a") and not scope_names.is_within("a", "a/b")


def test_the_names_of_modules_among_scopes():
    entered = [
        ("a/b", 1),
        ("bij,jk->bik", 2),
        (scope_names.Given("c"), 3),
        ("eqx.nn.Linear", 4),
        ("eqx.nn.Linear", 5),
        (scope_names.Given("d", "Linear"), 6),
        ("Linear", 7),
        (scope_names.Given("e", "Linear"), 8),
        (scope_names.Given("Linear", "Linear"), 9),
        ("other", 10),
        ("other.method", 11),
        ("other.helper", 12),
        ("1", 13),
        ("0", 14),
        (scope_names.Given("layers/0"), 15),
        ("0", 16),
    ]
    assert list(scope_names.of_modules(entered)) == [
        ("a", (1, 0)),
        ("b", (1, 1)),
        ("c", (3, 0)),
        ("eqx.nn.Linear", (5, 0)),
        ("d", (6, 0)),
        ("e", (8, 0)),
        ("Linear", (9, 0)),
        ("other", (10, 0)),
        ("1", (13, 0)),
        ("layers", (15, 0)),
        ("0", (15, 1)),
        ("0", (16, 0)),
    ]


def test_the_operations_of_pytorch_are_no_modules():
    net, layer = (scope_names.Given(name, "Net", of_torch=True) for name in ("net", "layer/0"))
    entered = ["aten::add", "linear", net, "aten::softmax", "aten::exp", layer, "linear"]
    other = [scope_names.Given("other"), "linear"]
    scopes = ((scope, n) for n, scope in enumerate([*entered, *other]))
    names = [name for name, _ in scope_names.of_modules(scopes)]
    assert names == ["linear", "net", "layer", "0", "other", "linear"]


@pytest.mark.parametrize(
    ("scopes", "found"),
    [
        (["m/layer_1/a", "m/layer_0", "m", ""], {"layer 0": "m/layer_0", "layer 1": "m/layer_1"}),
        (
            ["m/layers[10]", "m/layers[9]/x_1"],
            {"layers 9": "m/layers[9]", "layers 10": "m/layers[10]"},
        ),
        (
            ["encoder/layer/0/b", "encoder/layer/2"],
            {"layer 0": "encoder/layer/0", "layer 2": "encoder/layer/2"},
        ),
        (
            ["Net/Dense_0", "Net/Block_0/a", "Net/Block_1"],
            {"Block 0": "Net/Block_0", "Block 1": "Net/Block_1"},
        ),
        (["Net/Dense_0"], {"Dense 0": "Net/Dense_0"}),
        (["Net/up", "Net"], {}),
    ],
)
def test_modules_with_numbers(scopes, found):
    assert scope_names.numbered(scopes) == found
    assert [*scope_names.numbered(scopes[::-1])] == [*found]


def test_scope_that_encloses_all():
    assert scope_names.enclosing_all(["a/b/c", "a/b/d/e"]) == "a/b"
    assert scope_names.enclosing_all(["a/b", "a/b/c"]) == "a"
    assert scope_names.enclosing_all(["a", "b/c"]) == ""


def test_names_with_a_dot_are_names():
    entered = [("model", 1), ("model.encoder", 2)]
    found = [name for name, _ in scope_names.of_modules(entered)]
    assert found == ["model", "model.encoder"]
    entered = [("mlp", 1), ("mlp.method", 2)]  # one of Linen's modules has it
    assert [name for name, _ in scope_names.of_modules(entered)] == ["mlp"]
