import base64
import dataclasses
import itertools
import pathlib
import re
import sys
import warnings
import xml.etree.ElementTree as ElementTree

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont
from IPython.core.formatters import DisplayFormatter
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.colors import same_color, to_rgba
from matplotlib.text import Text
from matplotlib.ticker import ScalarFormatter

import semijax as sj
from semijax import page, pictures
from semijax.paths.path import Edge, Node, Path, Variable
from semijax.pictures import fonts
from semijax.pictures.bars import BRANCHES

TOKENS = ["[CLS]", "a $x$ b", "<unk>", "日本", "🙂"]
TEXTS = {"unit": "logit per unit", "normalisation": "sum to 1"}


@pytest.fixture(autouse=True)
def warned_of(monkeypatch):
    """Tokens that a machine may have no fonts for: the warning is tested by itself."""
    characters = set("日本🙂")
    monkeypatch.setattr("semijax.pictures.picture._warned_of", characters)
    return characters


def texts(picture):
    return [text.get_text() for text in picture.figure.findobj(Text) if text.get_text()]


def boxes(picture):
    return picture.figure.axes[0].patches


def near(actual, wanted, atol=0.01):
    np.testing.assert_allclose(to_rgba(actual), to_rgba(wanted), atol=atol)


# token_strip


def test_strip_shows_every_token_in_the_colour_of_its_number():
    picture = pictures.token_strip(TOKENS, [0, 2, -2, 1, -1], **TEXTS)
    near(boxes(picture)[0].get_facecolor(), "#f7f7f7")
    near(boxes(picture)[1].get_facecolor(), page.POSITIVE)
    near(boxes(picture)[2].get_facecolor(), page.NEGATIVE)
    assert [text.get_text() for text in picture.figure.axes[0].texts] == TOKENS
    for box, text in zip(boxes(picture), picture.figure.axes[0].texts, strict=True):
        x, y = text.get_position()
        assert box.get_x() < x < box.get_x() + box.get_width()
        assert box.get_y() < y < box.get_y() + box.get_height()


def test_unsigned_colours_begin_at_0():
    picture = pictures.token_strip(["a", "b", "c"], [1.0, 2.0, 0.0], **TEXTS)
    colours = matplotlib.colormaps["YlGn"]
    for box, share in zip(boxes(picture), (0.5, 1.0, 0.0), strict=True):
        near(box.get_facecolor(), colours(share))
    assert picture.caption == "Logit per unit per token; sum to 1."


def test_colours_begin_at_the_least_number_where_zero_is_far():
    colours = matplotlib.colormaps["YlGn"]
    for values, from_zero, least in (
        ([100, 110, 105], None, 100),
        ([100, 110, 105], True, 0),
        ([1, 2, 1.5], None, 0),
        ([1, 2, 1.5], False, 1),
        ([3, 3, 3], None, 0),
    ):
        picture = pictures.token_strip(["a", "b", "c"], values, from_zero=from_zero, **TEXTS)
        for box, value in zip(boxes(picture), values, strict=True):
            near(box.get_facecolor(), colours((value - least) / (max(values) - least)))
        assert (f"colours begin at {least}" in picture.caption) == (least > 0)


def test_signed_may_be_asked_for():
    picture = pictures.token_strip(["a", "b"], [1.0, 2.0], signed=True, **TEXTS)
    near(boxes(picture)[1].get_facecolor(), page.POSITIVE)
    assert picture.figure.axes[1].get_xlim() == (-2, 2)


@pytest.mark.parametrize(
    "number, name",
    [(-np.inf, "no path"), (np.inf, "no path"), (np.nan, "no path, or NaN")],
)
def test_strip_hatches_what_is_no_number(number, name):
    picture = pictures.token_strip(["a", "b"], [number, 0.5], **TEXTS)
    assert boxes(picture)[0].get_hatch() and not boxes(picture)[1].get_hatch()
    (entry,) = picture.figure.axes[1].get_legend().get_texts()
    assert entry.get_text() == name
    assert picture.caption.endswith(f"hatched: {name}.")


def test_without_any_number_all_is_hatched():
    picture = pictures.token_strip(["a", "b"], [-np.inf, -np.inf], **TEXTS)
    assert all(box.get_hatch() for box in boxes(picture))


def test_zeros_are_white_not_an_error():
    picture = pictures.token_strip(["a"], [0.0], signed=True, **TEXTS)
    near(boxes(picture)[0].get_facecolor(), "#f7f7f7")


def test_every_text_is_readable_on_its_box():
    def luminance(colour):
        c = np.array(to_rgba(colour)[:3])
        return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [
            0.2126,
            0.7152,
            0.0722,
        ]

    for signed in (True, False):
        numbers = np.linspace(-1 if signed else 0, 1, 41)
        picture = pictures.token_strip(["x"] * 41, numbers, **TEXTS)
        for box, text in zip(boxes(picture), picture.figure.axes[0].texts, strict=True):
            both = sorted([luminance(box.get_facecolor()), luminance(text.get_color())])
            assert (both[1] + 0.05) / (both[0] + 0.05) > 4.5  # WCAG AA


def test_long_sentences_are_wrapped_and_nothing_overlaps():
    picture = pictures.token_strip(["word", "longer-word"] * 30, np.arange(60.0), **TEXTS)
    lines = {}
    for box in boxes(picture):
        lines.setdefault(box.get_y(), []).append(box)
    assert len(lines) > 3
    right = picture.figure.axes[0].get_xlim()[1]
    for line in lines.values():
        for one, other in itertools.pairwise(line):
            assert one.get_x() + one.get_width() < other.get_x()
        assert line[-1].get_x() + line[-1].get_width() < right
    height = boxes(picture)[0].get_height()
    assert all(b - a > height for a, b in itertools.pairwise(lines))


def test_a_long_token_is_cut():
    picture = pictures.token_strip(["x" * 500], [1.0], **TEXTS)
    assert picture.figure.axes[0].texts[0].get_text() == "x" * 23 + "…"


def test_control_characters_are_escaped():
    picture = pictures.token_strip(["\n", "\x00", "\ud800"], [1, 2, 3], title="a\nb\x01", **TEXTS)
    assert [t.get_text() for t in picture.figure.axes[0].texts] == ["\\n", "\\x00", "\\ud800"]
    assert picture.caption.startswith("a b\\x01. ")
    ElementTree.fromstring(svg(picture))


def test_the_bar_says_unit_sign_and_normalisation():
    for picture in (
        pictures.token_strip(["a"], [-1.0], **TEXTS),
        pictures.heat_map([[-1.0]], rows=["a"], columns=["b"], **TEXTS),
    ):
        said = "red is positive, blue negative; sum to 1"
        bar = picture.figure.axes[1].get_xlabel().replace("\n", " ")
        assert bar == f"Logit per unit; {said}"
        assert picture.caption.startswith("Logit per unit per") and said in picture.caption


def test_jax_arrays_of_low_precision_are_numbers():
    values = jnp.array([-1, 1], jnp.bfloat16)
    near(boxes(pictures.token_strip(["a", "b"], values, **TEXTS))[1].get_facecolor(), page.POSITIVE)


# heat_map


def test_heat_map_is_coloured_from_the_first_row_upwards():
    values = np.array([[1.0, -np.inf, 0.0], [-2.0, 2.0, np.nan]])
    labels = {"row_label": "layer", "column_label": "token"}
    picture = pictures.heat_map(values, columns=["a", "$", "c"], **labels, **TEXTS)
    axes = picture.figure.axes[0]
    (mesh,) = axes.findobj(QuadMesh)
    np.testing.assert_array_equal(mesh.get_array().filled(9), [[1, 9, 0], [-2, 2, 9]])
    assert mesh.get_clim() == (-2, 2)
    mesh.update_scalarmappable()
    colours = mesh.get_facecolor().reshape(2, 3, 4)
    near(colours[1, 0], page.NEGATIVE)
    near(colours[1, 1], page.POSITIVE)
    assert colours[0, 1, 3] == 0 and axes.patch.get_hatch()  # seen through to the hatches
    assert axes.get_ylim()[0] < axes.get_ylim()[1]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["a", "$", "c"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["0", "1"]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("layer", "token")
    assert "no path, or NaN" in texts(picture)


def test_heat_map_without_missing_numbers_has_no_hatches():
    picture = pictures.heat_map([[1.0]], rows=["0"], columns=["a"], **TEXTS)
    assert not picture.figure.axes[0].patch.get_hatch()


def test_many_columns_have_fewer_labels():
    names = [str(n) for n in range(300)]
    picture = pictures.heat_map(np.ones((2, 300)), rows=["0", "1"], columns=names, **TEXTS)
    axes = picture.figure.axes[0]
    labels = [int(t.get_text()) for t in axes.get_xticklabels()]
    assert labels == list(axes.get_xticks()) and 20 < len(labels) < 100


# stacked_bars

SHARES = {"keys": [0.25, 0.5], "skip": [0.5, 0.375], "values": [0.25, 0.125]}


def test_bars_are_stacked_in_order():
    picture = pictures.stacked_bars(SHARES, groups=["0", "1"], **TEXTS)
    axes = picture.figure.axes[0]
    for number, (bars, heights) in enumerate(zip(axes.containers, SHARES.values(), strict=True)):
        assert [bar.get_height() for bar in bars] == heights
        assert all(same_color(bar.get_facecolor(), BRANCHES[number]) for bar in bars)
    tops = [bar.get_y() + bar.get_height() for bar in axes.containers[-1]]
    assert tops == [1, 1]
    assert [bar.get_y() for bar in axes.containers[1]] == SHARES["keys"]
    # from the top, as they are stacked
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["values", "skip", "keys"]
    assert axes.get_ylabel() == "Logit per unit"
    assert "Sum to 1" in texts(picture)
    assert picture.caption == "Logit per unit per layer and branch; sum to 1."


def test_error_bars_stand_at_the_upper_ends():
    errors = {"skip": [0.125, 0.25]}
    picture = pictures.stacked_bars(SHARES, groups=["0", "1"], errors=errors, **TEXTS)
    (lines,) = picture.figure.axes[0].findobj(LineCollection)
    ends = [segment[:, 1].tolist() for segment in lines.get_segments()]
    assert ends == [[0.625, 0.875], [0.625, 1.125]]


def test_more_branches_than_colours_differ_in_hatches():
    shares = {f"_{n}": [1.0] for n in range(10)}
    picture = pictures.stacked_bars(shares, groups=["0"], **TEXTS)
    looks = {
        (bars[0].get_facecolor(), bars[0].get_hatch()) for bars in picture.figure.axes[0].containers
    }
    assert len(looks) == 10
    assert {f"_{n}" for n in range(10)} <= set(texts(picture))


# grouped_bars

VALUES = {"keys": [0.25, -0.5], "skip": [0.0, 0.375], "values": [0.25, 0.125]}


def test_bars_stand_side_by_side():
    picture = pictures.grouped_bars(VALUES, groups=["first", "other"], **TEXTS)
    axes = picture.figure.axes[0]
    for number, (bars, heights) in enumerate(zip(axes.containers, VALUES.values(), strict=True)):
        assert [bar.get_height() for bar in bars] == heights
        assert all(same_color(bar.get_facecolor(), BRANCHES[number]) for bar in bars)
        assert all(bar.get_y() == 0 for bar in bars)
    for group in range(2):
        bars = [container[group] for container in axes.containers]
        ends = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars]
        assert all(a[1] == pytest.approx(b[0]) for a, b in itertools.pairwise(ends))
        assert sum(ends[1]) / 2 == pytest.approx(group)
    assert [t.get_text() for t in axes.get_legend().get_texts()] == [*VALUES]
    assert axes.get_ylabel() == "Logit per unit"
    assert "Sum to 1" in texts(picture)


def test_error_bars_stand_around_the_bars_ends():
    errors = {"skip": [0.125, np.nan]}
    picture = pictures.grouped_bars(VALUES, groups=["first", "other"], errors=errors, **TEXTS)
    (lines,) = picture.figure.axes[0].findobj(LineCollection)
    ends = [segment[:, 1].tolist() for segment in lines.get_segments() if len(segment)]
    assert ends[0] == [-0.125, 0.125] and np.isnan(ends[1:]).all()
    assert picture.caption.endswith("; with error bars.")


# path_grid


def small_path(last=-1.0):
    """From token 2 through a residual connection in layer a to token 0 in layer b, then pooled."""

    def node(name, shape, index, scope):
        return Node(
            Variable(name, shape, "float32", "" if name == "[0]" else "add", scope), index, 1.0
        )

    nodes = (
        node("[0]", (3, 2), (2, 1), ""),
        node("v1", (3, 2), (2, 1), "model/a"),
        node("v2", (3, 2), (2, 1), "model"),
        node("v3", (4, 3, 3), (1, 0, 2), "model/b/attention"),
        node("v4", (), (), "model"),
    )
    weights = [(2.0, ()), (1.0, ("model/a/mlp",)), (-3.0, ()), (last, ())]
    edges = tuple(Edge(w, n, 0, 0, (), around) for n, (w, around) in enumerate(weights))
    return Path(nodes, edges, (0,))


LAYERS = {"A": "*/a", "B": "*/b"}


def grid_lines(picture):
    """Of the paths, without the grid."""
    return [
        lines for lines in picture.figure.axes[0].findobj(LineCollection) if lines.get_zorder() == 2
    ]


def test_path_vertices_lie_in_their_token_and_layer():
    picture = pictures.path_grid(small_path(), layers=LAYERS, tokens=["x", "y", "z"])
    (lines,) = grid_lines(picture)
    vertices = [segment.tolist() for segment in lines.get_segments()]
    # A residual connection and a change of token take four times the room of another edge.
    a, residual = 1 + 1 / 6, 1 + 5 / 6
    b, end = 2 + 4 / 5, 3 + 1 / 2
    wanted = [
        [[2, 0.5], [2, a]],
        [[2, a], [2, residual]],
        [[2, residual], [0, b]],
        [[0, b], [0, end]],
    ]
    np.testing.assert_allclose(vertices, wanted)
    signs = [page.POSITIVE, page.POSITIVE, page.NEGATIVE, page.NEGATIVE]
    assert all(map(same_color, lines.get_colors(), signs))
    dashes = [style[1] is not None for style in lines.get_linestyles()]
    assert dashes == [False, True, False, True]
    axes = picture.figure.axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["input", "A", "B", "output"]
    assert axes.get_yticks().tolist() == [0.5, 1.5, 2.5, 3.5]
    assert "path: weight 6" in texts(picture)


def test_several_paths_lie_beside_each_other_as_wide_as_they_are_strong():
    paths = [small_path(), small_path(last=0.5), small_path(last=0.0)]
    picture = pictures.path_grid(paths, layers=["*/a", "*/b"], tokens=["x", "y", "z"])
    lines = grid_lines(picture)
    widths = [line.get_linewidths()[0] for line in lines]
    assert widths == pytest.approx([2.2, 1.5, 0.8])
    starts = [line.get_segments()[0][0, 0] for line in lines]
    assert starts == pytest.approx([1.8, 2.0, 2.2])
    assert same_color(lines[2].get_colors()[-1], "0.5")
    assert {"1, 2, 3", "path 2: weight -3", "local derivative = 0"} <= set(texts(picture))
    assert "; line width is |weight| over the largest" in picture.caption


def story(together, number):
    path = dataclasses.replace(small_path(), story=(number,), together=together)
    return dataclasses.replace(path, semiring="SumProduct()", carried=1.0, whole=8.0)


def test_a_story_is_drawn_with_the_sum_of_all_its_paths():
    stories = [story(together, n) for n, together in enumerate([4.0, -1.0, 2.0, 0.0, 3.0])]
    picture = pictures.path_grid(stories, layers=LAYERS, tokens=["x", "y", "z"])
    lines = grid_lines(picture)
    widths = [line.get_linewidths()[0] for line in lines]
    assert widths == pytest.approx([2.2, 1.15, 1.5, 0.8, 1.85])
    colours = [page.POSITIVE, page.NEGATIVE, page.POSITIVE, "0.5", page.POSITIVE]
    for line, colour in zip(lines, colours, strict=True):
        assert all(same_color(own, colour) for own in line.get_colors())
    told = set(texts(picture))
    assert {"1, 2, 3, 4\n5", "story 2: -1 of 8, -12%", "adds", "subtracts"} <= told
    assert "2: -1 of 8, -12%" in picture.caption
    many = pictures.path_grid(stories * 2, layers=LAYERS, tokens=["x", "y", "z"])
    assert "these 10 stories together: +16 of 8, 200%" in many.caption


def test_without_the_tokens_texts_paths_must_know_their_tokens():
    with pytest.raises(ValueError, match="do not know which axes count the tokens: pass tokens"):
        pictures.path_grid(small_path(), layers=LAYERS)


@pytest.mark.parametrize(
    "axis, columns",
    [
        (-1, [2]),  # the keys of the attention scores; arrays [3, 2] have no such axis
        (1, [0]),  # their queries
        (lambda node: 1 if node.scope == "model/b/attention" else None, [1]),
    ],
)
def test_the_token_axis_may_be_told(axis, columns):
    picture = pictures.path_grid(
        small_path(), layers=LAYERS, tokens=["x", "y", "z"], token_axis=axis
    )
    (lines,) = grid_lines(picture)
    assert {x for segment in lines.get_segments() for x in segment[:, 0]} == set(columns)


def test_a_residual_connection_outside_of_all_layers_lies_in_the_one_it_skips():
    path = small_path()
    picture = pictures.path_grid(path, layers={"mlp": "*/mlp"}, tokens=["x", "y", "z"])
    (lines,) = grid_lines(picture)
    heights = [y for segment in lines.get_segments() for y in segment[:, 1]]
    # the argument and a/… below it, the rest above
    assert [int(y) for y in heights] == [0, 0, 0, 1, 1, 2, 2, 2]


def test_paths_of_a_model():
    def block(x):
        with jax.named_scope("attention"):
            x = x + jax.nn.softmax(x @ x.T) @ x
        with jax.named_scope("mlp"):
            return x + jnp.tanh(x)

    def model(x):
        for name in ("layer_0", "layer_1"):
            with jax.named_scope(name):
                x = block(x)
        return x[0].sum()

    x = jax.random.normal(jax.random.key(0), (5, 3))
    paths = sj.top_paths(model, k=2, source=(0, (3, 1)))(x)
    layers = {"0": "layer_0", "1": "layer_1"}
    picture = pictures.path_grid(paths, layers=layers, tokens=TOKENS)
    for lines, path in zip(grid_lines(picture), paths, strict=True):
        first, last = lines.get_segments()[0][0], lines.get_segments()[-1][-1]
        assert round(first[0]) == path.nodes[0].index[0] == 3 and round(last[0]) == 0
        assert int(first[1]) == 0 and int(last[1]) == 3
    assert "skips modules" in texts(picture)


# Pictures


def all_pictures(name="[CLS] $x$ <b>&\"'"):
    texts = {"unit": name, "normalisation": name, "title": name}
    return [
        pictures.token_strip([name, "b"], [1.0, -np.inf], **texts),
        pictures.heat_map([[1.0, -2.0]], rows=[name], columns=[name, "b"], **texts),
        pictures.stacked_bars({name: [1.0]}, groups=[name], group_label=name, **texts),
        pictures.grouped_bars({name: [1.0]}, groups=[name], group_label=name, **texts),
        pictures.path_grid(
            small_path(), layers=LAYERS | {name: "*"}, tokens=[name, "", "日"], title=name
        ),
    ]


def svg(picture):
    (data,) = re.findall(r'src="data:image/svg\+xml;base64,([^"]*)"', picture._repr_html_())
    return base64.b64decode(data).decode()


def test_a_notebook_stores_it_as_svg_and_as_png():
    """For viewers that show no SVG, such as GitHub's."""
    (picture, *_) = all_pictures("a")
    formats, _ = DisplayFormatter().format(picture)
    assert formats["image/png"].startswith(b"\x89PNG") and "svg" in formats["text/html"]
    assert len(formats["image/png"]) < len(picture._render("png"))


@pytest.mark.parametrize("n", range(5))
def test_html_is_escaped_and_needs_nothing_else(n, tmp_path):
    name = "[CLS] $x$ <b>&\"'"
    picture = all_pictures()[n]
    assert name in picture.caption and name in texts(picture)
    html = picture._repr_html_()
    assert "<b>" not in html and "&lt;b&gt;&amp;&quot;&#x27;" in html
    assert "http" not in html and "<script" not in html
    drawing = ElementTree.fromstring(svg(picture))
    assert not [x for x in drawing.iter() if "script" in x.tag]
    picture.save(tmp_path / "picture.html")
    document = (tmp_path / "picture.html").read_text(encoding="utf-8")
    assert html in document and document.startswith("<!doctype html>")


@pytest.mark.parametrize("n", range(5))
@pytest.mark.parametrize(
    "suffix, magic", [("svg", b"<?xml"), ("pdf", b"%PDF"), ("png", b"\x89PNG")]
)
def test_files_are_the_same_every_time(n, suffix, magic, tmp_path):
    one, other = all_pictures()[n], all_pictures()[n]
    for number, picture in enumerate((one, one, other)):
        picture.save(tmp_path / f"{number}.{suffix}")
    files = [(tmp_path / f"{number}.{suffix}").read_bytes() for number in range(3)]
    assert files[0] == files[1] == files[2] and files[0].startswith(magic)


def test_dollars_are_no_formulas():
    broken = r"$\frac{$ a_b $"
    for picture in all_pictures(broken):
        assert broken in texts(picture)
        assert "</svg>" in svg(picture)


def assert_apart(picture):
    outside = {
        label for axis in number_axes(picture) for place, label in ticks(axis) if place is None
    }
    drawn = [
        text
        for text in picture.figure.findobj(Text)
        if text.get_text() and text.get_visible() and text not in outside
    ]
    extents = [text.get_window_extent() for text in drawn]
    for n, one in enumerate(extents):
        for m, other in enumerate(extents[:n]):
            apart = (
                one.x0 >= other.x1 - 1
                or other.x0 >= one.x1 - 1
                or one.y0 >= other.y1 - 1
                or other.y0 >= one.y1 - 1
            )
            assert apart, (drawn[n].get_text(), drawn[m].get_text())


def test_nothing_lies_on_the_other():
    """The legend, the labels and the title, of pictures that have all."""
    tokens = ["[CLS]", "subject", "verb " * 8] * 5
    title = "A title that is much longer than a line of the picture can be " * 3
    shown = {"unit": "unit " * 20, "normalisation": "by " * 20, "title": title}
    numbers = np.where(np.arange(15) == 3, -np.inf, np.linspace(-1, 1, 15))
    for picture in (
        pictures.token_strip(tokens, numbers, **shown),
        pictures.heat_map([numbers] * 4, rows=list("abcd"), columns=tokens, **shown),
        pictures.stacked_bars({"a": [1] * 15, "b" * 30: [2] * 15}, groups=tokens, **shown),
        pictures.grouped_bars({"a": [1] * 15, "b" * 30: [2] * 15}, groups=tokens, **shown),
        pictures.path_grid([small_path()] * 3, layers=LAYERS, tokens=tokens[:3], title=title),
    ):
        assert_apart(picture)


# Numbers


def numbered_pictures(scale, shift=0.0):
    values = shift + scale * np.array([1.2, 3.1, 0.4])
    both = [values, values - 2 * scale]
    shown = {"unit": "unit " * 12, "normalisation": "by " * 12, "title": "title " * 20}
    bars = {"a": values, "b": 2 * values}
    return [
        pictures.token_strip(["the", "cat", "sat"], values, **shown),
        pictures.token_strip(["the", "cat", "sat"], values, signed=True, **shown),
        pictures.heat_map(both, rows=["0", "1"], columns=["the", "cat", "sat"], **shown),
        pictures.heat_map([[values[0]]], rows=["0"], columns=["the"], **shown),
        pictures.stacked_bars(bars, groups=["0", "1", "2"], **shown),
        pictures.grouped_bars(bars, groups=["0", "1", "2"], **shown),
        pictures.curves(values, bars, x_label="x", **shown),
    ]


def ticks(axis):
    """The places on an axis, None for one beyond its ends, and their labels."""
    low, high = sorted(axis.get_view_interval())
    places = axis.get_majorticklocs()
    shown = [place if low <= place <= high else None for place in places]
    return list(zip(shown, axis.get_majorticklabels(), strict=True))


def number_axes(picture):
    for axes in picture.figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(axis.get_major_formatter(), ScalarFormatter) and axis.get_visible():
                yield axis


@pytest.mark.parametrize(
    ("scale", "shift"), [(1e9, 0), (1e-9, 0), (-1e12, 0), (1.0, 0), (1.0, 1e6), (1e280, 0)]
)
def test_every_number_on_an_axis_says_what_it_is(scale, shift):
    """Its label alone, without an exponent or a sum that stands elsewhere."""
    for picture in numbered_pictures(abs(scale), shift):
        drawn = picture.figure
        drawn.draw_without_rendering()
        for axis in number_axes(picture):
            if axis.axes.get_subplotspec() is None and axis is axis.axes.yaxis:
                continue  # across a strip's bar
            assert not axis.get_offset_text().get_text()
            low, high = sorted(axis.get_view_interval())
            shown = [(place, label) for place, label in ticks(axis) if place is not None]
            assert len(shown) > 1
            for place, label in shown:
                number = float(label.get_text().replace("−", "-"))
                assert number == pytest.approx(place, abs=1e-3 * (high - low))
            boxes = [label.get_window_extent() for _, label in shown]
            assert all(a.x1 < b.x0 or a.y1 <= b.y0 for a, b in itertools.pairwise(boxes))


@pytest.mark.parametrize("scale", [1e9, 1e-9])
def test_large_and_small_numbers_lie_on_no_text(scale):
    for picture in numbered_pictures(scale):
        assert_apart(picture)


def test_ordinary_numbers_have_no_exponent():
    picture = pictures.curves([0, 1, 2], {"a": [0.1, 0.2, 0.3]}, x_label="x", **TEXTS)
    labels = [t.get_text() for t in picture.figure.axes[0].get_xticklabels()]
    assert {"0.0", "0.5", "1.0", "1.5", "2.0"} <= {
        f"{float(label.replace('−', '-')):.1f}" for label in labels
    }
    assert not any("e" in label for label in labels)


# Fonts


@pytest.fixture
def fonts_for(monkeypatch, tmp_path):
    """Makes the fonts those of matplotlib, and one more that draws a full square for characters."""
    manager = font_manager.fontManager
    own = str(pathlib.Path(matplotlib.get_data_path()))
    # Adding a font changes these lists and forgets what was found.
    monkeypatch.setattr(manager, "ttflist", [f for f in manager.ttflist if f.fname.startswith(own)])

    def make(characters, name="Squares", empty=""):
        builder = FontBuilder(1000, isTTF=True)
        pen = TTGlyphPen(None)
        for n, corner in enumerate([(0, 0), (0, 1000), (1000, 1000), (1000, 0)]):
            (pen.lineTo if n else pen.moveTo)(corner)
        pen.closePath()
        square, nothing = pen.glyph(), TTGlyphPen(None).glyph()
        builder.setupGlyphOrder([".notdef", "square", "nothing"])
        builder.setupCharacterMap(
            {ord(c): "square" for c in characters} | {ord(c): "nothing" for c in empty}
        )
        builder.setupGlyf({".notdef": nothing, "square": square, "nothing": nothing})
        builder.setupHorizontalMetrics({g: (1000, 0) for g in (".notdef", "square", "nothing")})
        builder.setupHorizontalHeader(ascent=1000, descent=0)
        builder.setupNameTable({"familyName": name, "styleName": "Regular"})
        builder.setupOS2(sTypoAscender=1000, usWeightClass=400)
        builder.setupPost()
        path = tmp_path / f"{name}.ttf"
        builder.save(path)
        manager.addfont(path)

    yield make
    monkeypatch.undo()
    manager._findfont_cached.cache_clear()


def ink(picture):
    """The share of dark pixels in the middle of the first token's text."""
    picture.figure.set_dpi(100)
    picture.figure.canvas.draw()
    (box,) = [text.get_window_extent() for text in picture.figure.axes[0].texts[:1]]
    pixels = np.asarray(picture.figure.canvas.buffer_rgba())[::-1, :, :3].mean(-1)
    middle, part = int(box.y0 + box.y1) // 2, int(box.height) // 6
    inside = pixels[middle - part : middle + part, int(box.x0) + 2 : int(box.x1) - 2]
    return (inside < 100).mean()


def test_a_character_is_drawn_in_an_installed_font_that_has_it(fonts_for, warned_of):
    warned_of.clear()
    fonts_for("日本🙂")
    picture = pictures.token_strip(["日本🙂", "the"], [0.1, 1.0], **TEXTS)
    assert picture.figure.axes[0].texts[0].get_fontfamily() == ["DejaVu Sans", "Squares"]
    assert ink(picture) > 0.95
    assert not warned_of and picture.caption.endswith("; sum to 1.")
    for other in all_pictures("日 本"):
        assert "no font" not in other.caption


def test_several_fonts_help_out_and_the_preferred_ones_first(fonts_for, warned_of):
    warned_of.clear()
    fonts_for("日本", name="A font")
    fonts_for("日", name="Noto Sans CJK JP")
    fonts_for("🙂", name="Z font")
    assert fonts.families(["日"]) == ["DejaVu Sans", "Noto Sans CJK JP"]
    wanted = ["DejaVu Sans", "Noto Sans CJK JP", "A font", "Z font"]
    assert fonts.families(["日本", "a", "🙂"]) == wanted
    assert fonts.families(["a", "é ∑"]) == ["DejaVu Sans"]
    assert "no font" not in pictures.token_strip(TOKENS, np.ones(5), **TEXTS).caption


def test_characters_that_no_font_has_are_warned_of_once(fonts_for, warned_of):
    warned_of.clear()
    fonts_for("本", empty="日")  # as a font does whose glyphs are in colour
    message = (
        r"No installed font has a glyph for '日' \(U\+65E5\), '🙂' \(U\+1F642\): .* Noto Sans CJK "
        r".*fontManager\.addfont"
    )
    with pytest.warns(UserWarning, match=message) as caught:
        picture = pictures.token_strip(["日本", "🙂", "the"], [0, 1, 2], **TEXTS)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert picture.caption.endswith("; no font here has 日 🙂.")
    picture._render("png")
    again = pictures.heat_map([[1]], rows=["🙂"], columns=["日"], **TEXTS)  # warnings are errors
    assert again.caption.endswith("; no font here has 日 🙂.")
    with pytest.warns(UserWarning, match="glyph for '語'"):
        pictures.token_strip(["日語"], [1], **TEXTS)


@pytest.mark.parametrize("n", range(5))
def test_every_text_of_a_picture_is_looked_at(n, fonts_for, warned_of):
    warned_of.clear()
    with pytest.warns(UserWarning, match="No installed font has a glyph for '日'") as caught:
        found = all_pictures("日")
    assert len(caught) == 1
    assert "no font here has 日" in found[n].caption


def test_what_is_added_to_a_picture_is_looked_at_when_it_is_saved(fonts_for, warned_of, tmp_path):
    warned_of.clear()
    picture = pictures.token_strip(["the"], [1], **TEXTS)
    picture.figure.text(0, 0, "日", fontfamily=["No such font"])
    with pytest.warns(UserWarning, match="glyph for '日'"):
        picture.save(tmp_path / "picture.png")


def test_the_fonts_of_this_machine_are_used(warned_of):
    """Those that matplotlib brings at least: ⨋ is in one of them, and not in DejaVu Sans."""
    warned_of.clear()
    having = {}
    for entry in font_manager.fontManager.ttflist:
        if "LastResort" in entry.fname or entry.name in fonts.ENCODED:
            continue
        with TTFont(entry.fname, fontNumber=getattr(entry, "index", 0), lazy=True) as font:
            if "glyf" not in font and "CFF " not in font:
                continue  # bitmaps
            for c in "⨋日🙂":
                if ord(c) in font.getBestCmap():
                    having.setdefault(c, set()).add(entry.name)
    assert "STIXGeneral" in having["⨋"] and "DejaVu Sans" not in having["⨋"]
    for c in "⨋日🙂":
        _, *others = fonts.families([c])
        assert set(others) <= having.get(c, set())
        if having.get(c):
            assert len(others) == 1
            assert pictures.token_strip([c], [1], **TEXTS).caption.endswith("sum to 1.")
        else:
            with pytest.warns(UserWarning, match="No installed font"):
                pictures.token_strip([c], [1], **TEXTS)


def test_the_users_settings_change_nothing(tmp_path):
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        all_pictures()[1].save(tmp_path / "a.svg")
        assert matplotlib.rcParams["font.size"] == 30
    all_pictures()[1].save(tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_pyplot_is_not_used():
    assert "matplotlib.pyplot" not in vars(pictures)
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    all_pictures()
    assert plt.get_fignums() == before


def test_a_picture_is_frozen():
    picture = all_pictures()[0]
    with pytest.raises(AttributeError):
        picture.caption = ""  # type: ignore[misc]


# Errors

STRIP = {"tokens": ["a", "b"], "values": [1, 2], **TEXTS}
HEAT = {"values": [[1, 2]], "rows": ["r"], "columns": ["a", "b"], **TEXTS}
BARS = {"shares": {"b": [1.0]}, "groups": ["g"], **TEXTS}
GROUPED = {"values": {"b": [1.0]}, "groups": ["g"], **TEXTS}
GRID = {"path_or_paths": small_path(), "layers": LAYERS, "tokens": ["x", "y", "z"]}


@pytest.mark.parametrize(
    "draw, arguments, error, message",
    [
        (
            "token_strip",
            STRIP | {"values": [1, 2, 3]},
            ValueError,
            "values must have one number per token, got shape (3,) for 2 tokens.",
        ),
        (
            "token_strip",
            STRIP | {"values": [[1, 2]]},
            ValueError,
            "values must have 1 axes, got shape (1, 2).",
        ),
        (
            "token_strip",
            STRIP | {"values": [1j, 2]},
            TypeError,
            "values must be real numbers, got dtype complex128.",
        ),
        ("token_strip", STRIP | {"values": ["a", 2]}, TypeError, "values must be real numbers"),
        (
            "token_strip",
            STRIP | {"values": [-1, 2], "signed": False},
            ValueError,
            "signed=False, but the least of the values is -1.",
        ),
        ("token_strip", STRIP | {"tokens": []}, ValueError, "tokens is empty."),
        (
            "token_strip",
            STRIP | {"tokens": "ab"},
            TypeError,
            "tokens must be a sequence of strings, got the string 'ab'.",
        ),
        ("token_strip", STRIP | {"unit": " "}, ValueError, "unit must say what it is, got ' '."),
        (
            "heat_map",
            HEAT | {"rows": ["a", "b"]},
            ValueError,
            "values must have one number per row and column, got shape (1, 2) for 2 rows and 2 col",
        ),
        (
            "heat_map",
            HEAT | {"values": [1, 2]},
            ValueError,
            "values must have 2 axes, got shape (2,).",
        ),
        ("heat_map", HEAT | {"columns": []}, ValueError, "columns is empty."),
        (
            "heat_map",
            HEAT | {"normalisation": ""},
            ValueError,
            "normalisation must say what it is, got ''.",
        ),
        (
            "heat_map",
            HEAT | {"first_row": "left"},
            ValueError,
            "first_row must be 'bottom' or 'top', got 'left'.",
        ),
        (
            "overlay",
            {"image": np.zeros((2, 2, 4)), "values": [[1.0]]},
            ValueError,
            "image must be [height, width] or [height, width, 3], got shape (2, 2, 4).",
        ),
        (
            "overlay",
            {"image": [[0.0, 2.0]], "values": [[1.0]]},
            ValueError,
            "image must have numbers from 0 to 1, or unsigned 8-bit integers, got numbers from 0",
        ),
        ("stacked_bars", BARS | {"shares": {}}, ValueError, "shares is empty."),
        (
            "stacked_bars",
            BARS | {"shares": {"b": [-1.0]}},
            ValueError,
            "shares['b'] must be finite and ≥ 0, got [-1.].",
        ),
        (
            "stacked_bars",
            BARS | {"shares": {"b": [np.nan]}},
            ValueError,
            "shares['b'] must be finite and ≥ 0, got [nan].",
        ),
        (
            "stacked_bars",
            BARS | {"shares": {"b": [1, 2]}},
            ValueError,
            "shares['b'] must have one number per group, got shape (2,) for 1 groups.",
        ),
        (
            "stacked_bars",
            BARS | {"errors": {"c": [1]}},
            ValueError,
            "errors has no shares for 'c'.",
        ),
        ("grouped_bars", GROUPED | {"values": {}}, ValueError, "values is empty"),
        (
            "grouped_bars",
            GROUPED | {"values": {"b": [np.inf]}},
            ValueError,
            "values['b'] must be finite, or NaN for no bar, got [inf].",
        ),
        (
            "grouped_bars",
            GROUPED | {"values": {"b": [1, 2]}},
            ValueError,
            "values['b'] must have one number per group, got shape (2,) for 1 groups.",
        ),
        (
            "grouped_bars",
            GROUPED | {"errors": {"c": [1]}},
            ValueError,
            "errors has branches that values lacks.",
        ),
        ("path_grid", GRID | {"path_or_paths": []}, ValueError, "path_or_paths is empty."),
        (
            "path_grid",
            GRID | {"path_or_paths": [1]},
            TypeError,
            "path_or_paths must be a Path or a sequence of them, got [1].",
        ),
        (
            "path_grid",
            GRID | {"layers": {}},
            ValueError,
            "layers must be globs over scopes, at least one, got {}.",
        ),
        (
            "path_grid",
            GRID | {"layers": "a"},
            TypeError,
            "layers must be a sequence of strings, got the string 'a'.",
        ),
        (
            "path_grid",
            GRID | {"layers": ["c", "d"]},
            ValueError,
            "No path goes through one of the layers 'c', 'd'. Their scopes are 'model/a', 'model', "
            "'model/b/attention'.",
        ),
        (
            "path_grid",
            GRID | {"tokens": ["a"] * 7},
            ValueError,
            "has no node with a token: no array of 7 rows.",
        ),
        (
            "path_grid",
            GRID | {"token_axis": lambda node: 3},
            ValueError,
            "token_axis found the tokens [3, 3, 3, 3, 3], but there are 3 tokens.",
        ),
    ],
)
def test_errors_say_what_was_given(draw, arguments, error, message):
    with pytest.raises(error) as raised:
        getattr(pictures, draw)(**arguments)
    assert message in str(raised.value)


def test_a_picture_has_few_formats(tmp_path):
    with pytest.raises(ValueError, match=r"saved as .png, .svg, .pdf or .html, got '.*a.txt'"):
        all_pictures()[0].save(tmp_path / "a.txt")


def test_without_matplotlib_the_way_out_is_told(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'semijax\[plot\]'"):
        pictures.token_strip(**STRIP)


@pytest.mark.parametrize("count", [1, 30, 60])
def test_a_legend_of_many_branches_has_room(count):
    shares = {f"layer_{n}/attention/output/dense_{n}": [1 / count] * 2 for n in range(count)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib's, of a layout that collapses
        picture = pictures.stacked_bars(shares, groups=["0", "1"], normalisation="none")
    assert "layer and branch" in picture.caption


def test_a_matrix_alone_can_be_drawn():
    for picture in (
        pictures.heat_map([[1, 2, 3], [4, 5, 6]]),
        pictures.stacked_bars({"a": [0.25, 0.5], "b": [0.75, 0.5]}),
        pictures.grouped_bars({"a": [1, 2]}),
        pictures.curves([0, 1], {"a": [1, 2]}),
        pictures.token_strip(["a"], [1]),
    ):
        assert "None" not in picture.caption and picture.caption[0].isupper()
        assert not any("normalisation" in text for text in texts(picture))
    picture = pictures.heat_map([[1, 2, 3], [4, 5, 6]])
    assert {"0", "1", "2"} <= set(texts(picture)) and picture.caption == "Value per row and column."


def test_the_first_row_is_at_the_bottom_or_at_the_top():
    for first_row, upside_down in (("bottom", False), ("top", True)):
        axes = pictures.heat_map([[1], [2]], first_row=first_row).figure.axes[0]
        low, high = axes.get_ylim()
        assert (low > high) == upside_down


def pixels_of(picture):
    """The middle of an overlay, as drawn: [rows, columns, 3]."""
    figure, axes = picture.figure, picture.figure.axes[0]
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box = axes.get_window_extent()
    drawn = np.asarray(canvas.buffer_rgba())[::-1][
        round(box.y0) : round(box.y1), round(box.x0) : round(box.x1), :3
    ][::-1]
    return drawn / 255


def test_an_overlay_is_the_right_way_up_and_shows_the_image_where_nothing_is():
    image = np.array([[0.0, 1.0], [0.5, 1.0]])
    drawn = pixels_of(pictures.overlay(image, [[0.0, 0.0], [0.0, 1.0]]))
    h, w = drawn.shape[:2]
    corners = [drawn[y, x] for y in (h // 4, 3 * h // 4) for x in (w // 4, 3 * w // 4)]
    np.testing.assert_allclose(corners[0], 0, atol=0.02)
    np.testing.assert_allclose(corners[1], 1, atol=0.02)
    np.testing.assert_allclose(corners[2], 0.5, atol=0.02)
    near(corners[3], matplotlib.colormaps["YlGn"](1.0), atol=0.02)


def test_an_overlay_paints_signs_and_leaves_out_what_is_no_number():
    image = np.full((4, 4, 3), 255, np.uint8)
    drawn = pixels_of(pictures.overlay(image, [[1.0, -1.0], [np.nan, -np.inf]]))
    h, w = drawn.shape[:2]
    near(drawn[h // 4, w // 4], page.POSITIVE, atol=0.02)
    near(drawn[h // 4, 3 * w // 4], page.NEGATIVE, atol=0.02)
    np.testing.assert_allclose(drawn[3 * h // 4, [w // 4, 3 * w // 4]], 1, atol=0.02)
