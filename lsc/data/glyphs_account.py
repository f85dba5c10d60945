"""What a set of glyphs consists of, line by line: faces with their licences, characters, classes, what was left out."""

from collections.abc import Iterator

from lsc.data.characters import brief
from lsc.data.fonts import coverage
from lsc.data.glyphs import SPLITS, Glyphs

# Displayed lines alone.
CHANGES_NO_RESULT = True


def account(dataset: Glyphs) -> Iterator[str]:
    """The lines of ``lsc data check glyphs``."""
    merged = [members for members in dataset.members if len(members) > 1]
    for split in SPLITS:
        for face in dataset.faces[split]:
            yield f"{split}: {face.name}, {len(coverage(face).characters):,} characters; licence: {face.license}"
    for count, what in sorted((count, what) for what, count in dataset.left_out.items() if count):
        yield f"left out: {what}, {count:,}"
    for split in dataset.splits:
        yield (
            f"{split}: {dataset.size(split):,} images of {len(set(dataset.labels(split).tolist())):,} classes; left out: "
            f"{dataset.copies[split]:,} that this split or an earlier one has, to the last bit and of the same class"
        )
    if dataset.group_sizes:
        yield f"groups of classes: {', '.join(f'{size:,}' for size in dataset.group_sizes)}"
    yield f"classes: {dataset.num_classes:,}, of which {len(merged):,} are of characters that look alike:"
    for members in merged:
        yield "  " + ", ".join(map(brief, members))
