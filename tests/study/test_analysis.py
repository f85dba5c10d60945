"""Tables and bounds: known values, brute force, and what must hold of any system."""

import math
import resource

import numpy as np
import pytest
import torch

from lsc.centers import Centers
from lsc.study import analysis, bounds
from lsc.systems import OrbitSystem, gaussian, orthoplex, polygon, simplex


def test_levenshtein_bound_is_attained_by_the_famous_sets() -> None:
    for count, dim, cosine in [
        (240, 8, 1 / 2),  # E8
        (196_560, 24, 1 / 2),  # minimal vectors of the Leech lattice
        (12, 3, 1 / math.sqrt(5)),  # icosahedron
        (56, 7, 1 / 3),
        (27, 6, 1 / 4),
        (6, 2, 1 / 2),  # hexagon
        (11, 2, math.cos(2 * math.pi / 11)),
        (10, 9, -1 / 9),  # simplex
        (18, 9, 0.0),  # orthoplex
    ]:
        assert bounds.levenshtein(count, dim) == pytest.approx(cosine, abs=1e-9)


def test_no_system_beats_the_bounds() -> None:
    systems = [simplex(9), orthoplex(6), polygon(17), gaussian(300, 12), OrbitSystem(1, 1, 30), OrbitSystem(2, 1, 14)]
    for system in systems:
        assert system.max_cosine >= bounds.levenshtein(system.capacity, system.dim) - 1e-6
        assert bounds.levenshtein(system.capacity, system.dim) >= bounds.rankin(system.capacity, system.dim) - 1e-9
        assert max(abs(c) for c in system.cosine_spectrum()) >= bounds.welch(system.capacity, system.dim) - 1e-6 or (
            not isinstance(system, OrbitSystem)  # one vector of these does not see what all see
        )
    values = [bounds.levenshtein(count, 10) for count in range(2, 3000, 7)]
    assert np.all(np.diff(values) >= -1e-12)
    for dim in (2, 3, 10):
        assert bounds.welch(dim, dim) == pytest.approx(0, abs=1e-9)


def test_random_cosine_is_the_median_of_simulations() -> None:
    found = [gaussian(200, 10, seed).max_cosine for seed in range(41)]
    assert bounds.random_cosine(200, 10) == pytest.approx(float(np.median(found)), abs=0.02)


def test_capacity_and_least_dimensions() -> None:
    table = analysis.capacity_table([384, 768]).set_index(["system", "dim"])["capacity"]
    assert table["V11", 384] == 147_072
    assert table["V21", 384] == 28_090_752
    assert table["V22", 384] == 5_351_288_256
    assert table["V22", 768] == 86_295_231_360
    least = analysis.least_dimension_table([1_281_167]).set_index("system")
    assert least["dim"].to_dict() == {
        "V11": 1133, "V21": 138, "V22": 50, "V33": least.loc["V33", "dim"], "simplex": 1_281_166, "orthoplex": 640_584,
    }  # fmt: skip
    assert OrbitSystem(3, 3, int(least.loc["V33", "dim"]) - 1).capacity < 1_281_167
    assert least.loc["V11", "dense_bytes"] == 1_281_167 * 1133 * 4
    assert (least["used"] <= 1).all()
    assert set(analysis.capacity_table([3, 4], ["V22", "simplex"])["dim"][:1]) == {4}


def test_spectra_and_angles() -> None:
    spectrum = analysis.spectrum_table([OrbitSystem(1, 1, 1133)]).set_index("cosine")["count"]
    assert spectrum[0.5] == 2 * 1131
    assert spectrum[-1.0] == 1
    assert spectrum.sum() == 1133 * 1132 - 1
    table = analysis.min_angle_table([3, 4, 5, 9, 50, 1133], ["V11", "V22"])
    assert (table["min_angle"] <= table["levenshtein_bound"] + 1e-9).all()
    assert (table["levenshtein_bound"] <= table["rankin_bound"] + 1e-9).all()
    roots = table[table["system"] == "V11"].set_index("span")
    assert np.allclose(roots["min_angle"], 60)
    # In 2 and 3 dimensions the roots of A are as many as there can be at 60 degrees.
    assert roots.loc[2, "vectors"] == roots.loc[2, "kissing_number"] == 6
    assert roots.loc[3, "vectors"] == roots.loc[3, "kissing_number"] == 12
    assert roots.loc[4, "vectors"] < roots.loc[4, "kissing_number"]


def test_perturbation_against_all_pairs_and_its_own_sample() -> None:
    system = OrbitSystem(1, 1, 10)
    table = analysis.perturbation_table(system, system.capacity, [0.0, 0.05, 0.2])
    assert table["smallest"][0] == pytest.approx(60, abs=1e-3)
    assert table["smallest"].is_monotonic_decreasing
    assert table["exact"].all()
    # Each center turns by its bound at most, so the smallest angle shrinks by twice that at most.
    turn = 2 * math.degrees(math.asin(0.05 * (1 + 3 / math.sqrt(20))))
    assert 60 - turn <= table["smallest"][1] < 60
    centers = Centers(system, system.capacity, perturbation=0.05)
    sampled = analysis._nearest_of_neighbours(centers, 900, seed=0)
    assert float(sampled.max()) == pytest.approx(math.cos(math.radians(table["smallest"][1])), abs=1e-6)


def test_neighbours_are_the_vectors_at_the_largest_cosine() -> None:
    for system in (OrbitSystem(1, 1, 6), OrbitSystem(2, 1, 7), OrbitSystem(2, 2, 6)):
        own = torch.tensor(system.capacity // 3)
        found = analysis.neighbours(system, own)
        dots = system.vectors(torch.arange(system.capacity)) @ system.vectors(own)
        expected = (dots == system.plus + system.minus - 1).nonzero()[:, 0]
        assert torch.equal(found.sort().values, expected)


def test_noise_error_against_its_union_bound() -> None:
    systems = [OrbitSystem(1, 1, 33), OrbitSystem(2, 1, 14)]
    table = analysis.noise_error_table([Centers(s, s.capacity) for s in systems], [0.1, 0.15, 0.2], samples=4096)
    assert (table["error"] <= table["union_bound"] + 4 * table["standard_error"] + 1e-3).all()
    small = table[table["error"].between(0.001, 0.05)]
    assert len(small) >= 1
    # For rare errors the bound is close to the truth.
    assert (small["error"] >= 0.4 * small["union_bound"] - 4 * small["standard_error"]).all()
    assert table.groupby("system")["error"].is_monotonic_increasing.all()
    perturbed = analysis.noise_error_table([Centers(systems[0], 1000, perturbation=0.1)], [0.15], samples=512)
    assert perturbed["union_bound"].isna().all()


def test_the_tables_of_a_million_vectors_take_little_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    analysis.least_dimension_table([10**3, 10**6, 10**9])
    analysis.min_angle_table([10, 100, 1133])
    analysis.perturbation_table(OrbitSystem(1, 1, 1133), 1_281_167, [0.05], sample=8)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 300_000  # KiB
