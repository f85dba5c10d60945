"""Weighted nearest neighbours against a plain loop, and what a run reports of them."""

from collections import defaultdict
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from lsc.training.loop import train
from lsc.training.neighbours import evenly_of_each, weighted_votes
from tests.conftest import tiny_run


@pytest.mark.parametrize("k", [1, 5, 20, 1000])
def test_votes_against_a_plain_loop(k: int) -> None:
    generator = torch.Generator().manual_seed(0)
    known = F.normalize(torch.randn(60, 5, generator=generator), dim=1)
    asked = F.normalize(torch.randn(40, 5, generator=generator), dim=1)
    labels = torch.randint(7, (60,), generator=generator)
    expected = []
    for row in asked:
        cosines = known @ row
        votes: defaultdict[int, float] = defaultdict(float)
        for index in cosines.argsort(descending=True)[:k].tolist():
            votes[int(labels[index])] += float((cosines[index].double() / 0.07).exp())
        expected.append(max(votes, key=lambda label: votes[label]))
    assert weighted_votes(asked, known, labels, k).tolist() == expected


@pytest.mark.parametrize("per_class", [1, 3, 10, None])
def test_each_class_gives_as_many_as_it_may(per_class: int | None) -> None:
    labels = torch.randint(6, (200,), generator=torch.Generator().manual_seed(1))
    labels[:2] = 6  # of which there are two
    chosen = evenly_of_each(labels, per_class)
    counts, taken = torch.bincount(labels, minlength=7), torch.bincount(labels[chosen], minlength=7)
    assert torch.equal(taken, counts if per_class is None else counts.clamp(max=per_class))
    assert bool((chosen.diff() > 0).all())


def test_a_run_names_protocol_backbone_and_embedding(tmp_path: Path) -> None:
    run = tiny_run(training={"neighbours": 20, "neighbour_protocol": "weighted", "neighbour_images": 30})
    summary = train(run, tmp_path)
    assert summary["neighbour_top1"] > 1.5 / 6
    assert summary["neighbour_backbone_top1"] > 1.5 / 6
    assert summary["neighbour_protocol"] == "k 20, weights exp(cosine / 0.07), 30 training images of each class"
    assert tiny_run().digest == tiny_run(training={"neighbour_protocol": "majority"}).digest
