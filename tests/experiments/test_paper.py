"""The page of the paper's claims: every stored table's, and none that is missing."""

import pathlib

import numpy as np
import pytest

from semijax.experiments import paper
from semijax.experiments.claims import overturned

RESULTS = pathlib.Path(__file__).parents[2] / "notebooks" / "results"


def test_every_stored_table_is_quoted():
    text = paper.markdown(RESULTS)
    stored = [section for section in paper.SECTIONS if (RESULTS / section[1]).exists()]
    assert len(stored) >= 6
    whole = []
    for title, file, claims in stored:
        found = claims(paper.ResultTable(RESULTS / file, ()).read())
        whole += found
        assert f"### {title}\n" in text and found
        for claim in found:
            assert claim.statement in text and claim.verdict in text
    assert f"over all {len(whole)} (Benjamini" in text
    assert all(f"“{claim.statement}”" in text for claim in overturned(whole))


def test_other_instructions_give_the_same_verdicts():
    text, compared = paper.markdown(RESULTS), 0
    for _, file, claims in paper.SECTIONS:
        again = RESULTS / paper.RETRAINED / file
        if not again.exists():
            continue
        stored, retrained = (
            claims(paper.ResultTable(p, ()).read()) for p in (RESULTS / file, again)
        )
        for one, other in zip(stored, retrained, strict=True):
            assert not np.array_equal(one.values, other.values)  # other models
            assert one.statement == other.statement and one.verdict == other.verdict
            assert f"| {one.verdict} | {other.record()['here']}: {other.verdict} |" in text
            compared += 1
    assert compared >= 4


def test_a_folder_without_tables_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none of the tables agreement\.csv, difficulty"):
        paper.markdown(tmp_path)


def test_the_command_prints_the_page(capsys):
    paper.main([str(RESULTS)])
    assert paper.markdown(RESULTS).strip() == capsys.readouterr().out.strip()
