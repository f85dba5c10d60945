"""Files of embeddings: Parquet, safetensors or npz, each written whole or not at all.

| | |
|---|---|
| Parquet | columns ``path``, ``embedding`` (a list of dim float32) and perhaps ``class`` and ``score``, a row group per batch |
| safetensors | ``embeddings`` (N, dim), perhaps ``labels`` and ``scores`` (N,); ``paths``, ``classes`` as JSON in the metadata |
| npz | ``paths``, ``embeddings`` and perhaps ``classes`` and ``scores`` |

The metadata of a safetensors file are part of its header, which may have 100 MB: a million paths or so. A longer list is a tensor
instead, of the same name and with the same JSON as uint8: ``json.loads(bytes(tensors["paths"].numpy()))``.

All are opened before the first batch is asked for: that a place cannot be written to is known before the work, not after it.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lsc.errors import UserError, needing
from lsc.files import write_tensors, written_out
from lsc.trained.classifier import Classifier, Embedded

Write = Callable[[Embedded], None]
# Bytes of a safetensors file's header that are taken for lists of names; the library writes and reads 100 MB.
_MOST_METADATA = 90_000_000

Sink = Callable[[Path, Classifier, bool], AbstractContextManager[Write]]


def sink_for(path: Path) -> Sink:
    """What writes embeddings to a file of this ending: called with the path, the run and whether classes are wanted.

    Raises:
        UserError: another ending, or a package is missing.
    """
    sinks: dict[str, Sink] = {".parquet": _parquet, ".safetensors": _safetensors, ".npz": _npz}
    if path.suffix.lower() not in sinks:
        raise UserError(f"--out {path}: its ending must be one of {', '.join(sinks)}")
    if path.suffix.lower() == ".parquet":
        with needing("data", f"--out {path}"):
            import pyarrow  # noqa: F401  now, not when the first batch is done
    return sinks[path.suffix.lower()]


@contextmanager
def _parquet(path: Path, trained: Classifier, classes: bool) -> Iterator[Write]:
    import pyarrow as pa
    from pyarrow import parquet

    dim = trained.task.encoder.dim
    fields = [("path", pa.string()), ("embedding", pa.list_(pa.float32(), dim))]
    fields += [("class", pa.string()), ("score", pa.float32())] if classes else []
    schema = pa.schema(fields, metadata={"score": trained.score} if classes else None)
    with written_out(path) as temporary, parquet.ParquetWriter(temporary, schema, compression="zstd") as writer:

        def write(batch: Embedded) -> None:
            columns: list[Any] = [
                _names(batch),
                pa.FixedSizeListArray.from_arrays(pa.array(batch.embeddings.flatten().numpy()), dim),
            ]
            if classes:
                labels, scores = trained.ranked(batch.embeddings)
                columns += [[trained.classes[label] for label in labels[:, 0].tolist()], scores[:, 0].numpy()]
            writer.write_table(pa.table(columns, schema=schema))

        yield write


@contextmanager
def _safetensors(path: Path, trained: Classifier, classes: bool) -> Iterator[Write]:
    with written_out(path) as temporary, _collected(trained, classes) as (write, found):
        yield write
        paths, tensors = found()
        about = {"paths": json.dumps(paths)}
        if classes:
            about |= {"classes": json.dumps(trained.classes), "score": trained.score}
        for name in sorted(about.keys() - {"score"}, key=lambda name: -len(about[name])):
            if len(json.dumps(about)) <= _MOST_METADATA:  # as they will stand in the header
                break
            tensors[name] = torch.frombuffer(bytearray(about.pop(name), "utf-8"), dtype=torch.uint8)
        write_tensors(temporary, tensors, about)


@contextmanager
def _npz(path: Path, trained: Classifier, classes: bool) -> Iterator[Write]:
    with written_out(path) as temporary, _collected(trained, classes) as (write, found):
        yield write
        paths, tensors = found()
        arrays: dict[str, Any] = {"paths": np.array(paths), "embeddings": tensors["embeddings"].numpy()}
        if classes:
            arrays["classes"] = np.array([trained.classes[label] for label in tensors["labels"].tolist()])
            arrays["scores"] = tensors["scores"].numpy()
        with temporary.open("wb") as stream:
            np.savez(stream, **arrays)


@contextmanager
def _collected(
    trained: Classifier, classes: bool
) -> Iterator[tuple[Write, Callable[[], tuple[list[str], dict[str, Tensor]]]]]:
    """What gathers batches, and what gives all of them together."""
    paths: list[str] = []
    parts: list[Tensor] = []

    def write(batch: Embedded) -> None:
        paths.extend(_names(batch))
        parts.append(batch.embeddings)

    def found() -> tuple[list[str], dict[str, Tensor]]:
        tensors = {"embeddings": torch.cat(parts)}
        if classes:
            labels, scores = trained.ranked(tensors["embeddings"])
            tensors |= {"labels": labels[:, 0].contiguous(), "scores": scores[:, 0].contiguous()}
        return paths, tensors

    yield write, found


def _names(batch: Embedded) -> list[str]:
    """Paths of the files that were read; one that is not UTF-8 has its other bytes escaped."""
    kept = [str(path) for place, path in enumerate(batch.paths) if place not in batch.faults]
    return [name.encode(errors="backslashreplace").decode() for name in kept]
