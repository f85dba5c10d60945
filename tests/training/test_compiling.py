"""Compiled blocks and losses do what they did, each is compiled once, and the last batch of an evaluation is no other shape."""

import subprocess
import sys
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import nn

from lsc.centers import Centers
from lsc.data import open_dataset
from lsc.encoders import build_encoder
from lsc.objectives import OBJECTIVES, LayerObjective
from lsc.systems import parse_system
from lsc.tracing import constant_in_traces
from lsc.training.building import task_for
from lsc.training.compiling import compile_task, repeated_blocks
from lsc.training.evaluation import evaluate
from tests.conftest import tiny_run
from tests.training.test_device_waits import cpu_fabric


class Counting:
    """A compiler that compiles nothing and counts how often it was asked to."""

    def __init__(self) -> None:
        self.graphs: list[Any] = []

    def __call__(self, graph: Any, _: Any) -> Any:
        self.graphs.append(graph)
        return graph.forward


@pytest.fixture
def compiler() -> Counting:
    torch._dynamo.reset()
    return Counting()


def test_blocks_that_repeat_are_found() -> None:
    vit = build_encoder("vit_ti", (3, 16, 16), 8, width=24, depth=4)
    blocks = repeated_blocks(vit)
    assert [type(block).__name__ for block in blocks] == ["EncoderBlock"] * 4
    # Of a network without them nothing is taken apart: half of its weights are in stages that occur once.
    assert repeated_blocks(build_encoder("small_cnn", (3, 16, 16), 8)) == []
    assert repeated_blocks(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))) == []


def test_a_block_is_compiled_once_for_training_and_once_for_evaluation_of_any_last_batch(compiler: Counting) -> None:
    run = tiny_run(encoder={"name": "vit_ti", "width": 24, "depth": 4, "patch": 4}, objective={"name": "cross_entropy"})
    dataset = open_dataset(run.data)
    plain, compiled = task_for(run, dataset), task_for(run, dataset)
    compiled.load_state_dict(plain.state_dict())
    compile_task(compiled, backend=compiler)
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    fabric = cpu_fabric()
    batch = next(dataset.train_batches(32, seed=0, epoch=0))
    for task in (plain, compiled):
        task.train()
        task(batch.images, batch.labels).backward()
    gradients = [[p.grad for p in task.parameters()] for task in (plain, compiled)]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True) if a is not None and b is not None)
    # Two for the four blocks, of which the first gets its tokens in another layout than the others, and the loss.
    assert len(compiler.graphs) == 3
    size = dataset.size("test")
    assert size % 50
    scores = [evaluate(task, dataset, "test", fabric=fabric, batch_size=50) for task in (plain, compiled)]
    assert scores[0] == scores[1]
    assert len(compiler.graphs) == 5


@pytest.mark.parametrize(
    ("name", "system"), [("cosine", "A"), ("euclidean", "A"), ("center_softmax", "A"), ("orbit_softmax", "V22")]
)
@pytest.mark.apart
def test_a_loss_is_one_graph_that_copies_no_table(name: str, system: str, compiler: Counting) -> None:
    """Traced on the meta device, which stands in for a GPU: no look at a number breaks the graph."""
    kind, vectors = OBJECTIVES[name], parse_system(system, None, 5000)
    objective = kind(5000, vectors.dim) if issubclass(kind, LayerObjective) else kind(Centers(vectors, 5000))
    objective.to("meta")
    embeddings = torch.randn(8, vectors.dim, device="meta", requires_grad=True)
    labels = torch.zeros(8, dtype=torch.int64, device="meta")
    torch.compile(objective, backend=compiler, fullgraph=True, dynamic=False)(embeddings, labels)
    (graph,) = compiler.graphs
    assert [node.name for node in graph.graph.nodes if node.target is torch.tensor] == []
    # Nor does it make tables anew in each step.
    assert sum(len(part.graph.nodes) for part in graph.modules() if isinstance(part, torch.fx.GraphModule)) < 500


def test_the_compiler_is_told_of_constants_by_its_own_mark_and_not_imported_for_it() -> None:
    def function() -> int:
        return 1

    def marked() -> int:
        return 1

    assert vars(constant_in_traces(function)) == vars(torch.compiler.assume_constant_result(marked))
    code = "import sys, lsc.study.configuration, lsc.systems, lsc.centers; sys.exit('torch._dynamo' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
