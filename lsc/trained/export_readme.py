"""The README.md of an export: what the models take and give, and lines that use them as they stand."""

from collections.abc import Sequence
from typing import Any

from lsc.trained.classifier import Classifier


def readme(trained: Classifier, about: dict[str, Any], formats: Sequence[str]) -> str:
    """The text, of the run's name, ``model.json`` and the formats that were written."""
    parts = [_head(trained, about, formats)]
    if about["resize"] is not None and "onnx" in formats:
        parts.append(_use(about))
    if about["k"] == 0:
        parts.append(_many_classes(trained))
    return "\n".join(parts)


def _head(trained: Classifier, about: dict[str, Any], formats: Sequence[str]) -> str:
    shape = ", ".join(map(str, about["image"]))
    is_cosine = about["score"] == "cosine"
    lines = [
        f"# An image encoder with {len(about['classes']):,} classes",
        "",
        f"Exported by lsc from the run `{trained.run.name}`. Nothing of lsc is needed to use it.",
        "",
        "| | |",
        "|---|---|",
    ]
    if "onnx" in formats:
        lines.append("| `model.onnx` | for onnxruntime |")
    if "pt2" in formats:
        lines.append('| `model.pt2` | for PyTorch: `torch.export.load("model.pt2").module()(images)` |')
    lines += [
        "| `model.json` | class names, and the numbers of this page |",
        f"| input `images` | {about['pixels']} (B, {shape})"
        + (", RGB from 0 to 255; any number of images at a time |" if about["resize"] else ", as in training |"),
        f"| output `embeddings` | float32 (B, {about['dim']}) |",
    ]
    if about["k"]:
        score = "cosine of embedding and class center" if is_cosine else "probability by the softmax of the layer"
        lines.append(
            f"| outputs `labels`, `scores` | int64 and float32 (B, {about['k']}): best classes first, {score} |"
        )
    if about["resize"]:
        height, width, _ = about["image"]
        part = "the central square of 7/8 of the shorter side" if about["resize"] == "central" else "the whole image"
        lines += [
            "",
            f"An image is turned upright first, as its EXIF data say, and then brought to {width}x{height} pixels: {part}, "
            "bilinear with antialiasing. Everything else, normalisation too, is inside.",
        ]
    if "threshold" in about:
        lines += [
            "",
            f"Below a score of {about['threshold']:.4f} an image may be of none of the classes: so are "
            f"{100 * about['false_alarms']:g} % of held-out images of known classes at most (`threshold` in `model.json`).",
        ]
    return "\n".join(lines) + "\n"


def _use(about: dict[str, Any]) -> str:
    height, width, _ = about["image"]
    crop = ""
    if about["resize"] == "central":
        crop = (
            "side = max(1, round(min(image.size) * 0.875))\n"
            "left, top = (image.width - side) // 2, (image.height - side) // 2\n"
            "image = image.crop((left, top, left + side, top + side))\n"
        )
    kind = f'np.asarray(image, dtype="{about["pixels"]}")[None]'
    if about["k"]:
        run = f'embeddings, labels, scores = model.run(None, {{"images": {kind}}})\n'
        show = 'print([(about["classes"][label], float(score)) for label, score in zip(labels[0], scores[0])])\n'
    else:
        run, show = f'(embeddings,) = model.run(None, {{"images": {kind}}})\n', "print(embeddings.shape)\n"
    return (
        "## Use\n\n`pip install onnxruntime numpy pillow`, then:\n\n```python\n"
        "import json\n\nimport numpy as np\nimport onnxruntime\nfrom PIL import Image, ImageOps\n\n"
        'about = json.load(open("model.json", encoding="utf-8"))\n'
        'model = onnxruntime.InferenceSession("model.onnx")\n'
        'image = ImageOps.exif_transpose(Image.open("image.png")).convert("RGB")\n'
        f"{crop}image = image.resize(({width}, {height}), Image.Resampling.BILINEAR)\n{run}{show}```\n"
    )


def _many_classes(trained: Classifier) -> str:
    centers = trained.task.centers
    text = "## The class of an embedding\n\nClasses are too many for their centers to be in the model: it gives embeddings. "
    if centers is None:
        return (
            text + "Compare them with each other by their cosine, or look classes up with lsc, which has the layer.\n"
        )
    system = f"{centers.system.name} in {centers.dim} dimensions"
    return text + (
        f"The class is that of the nearest center. A center is a vector of {system}, made from the class's number, and the "
        "nearest of all is found exactly without looking at each of them: with lsc and the run's folder, "
        '`lsc.load("my_run").ranked(torch.from_numpy(embeddings), k=5)` gives labels and cosines. Where lsc cannot go, write the '
        'centers of the classes that matter there, `lsc.load("my_run").task.centers.vectors(labels)`, and take the greatest '
        "cosine.\n"
    )
