"""The JSON schema of a study file, by which editors complete and check it: ``python -m lsc.study.schema``.

It follows from the models that read a study, so it is written anew (``make schema``) when they change. What an experiment
or a variant gives is part of a run, to be laid over what stands above it: there, nothing is required.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from lsc.study.configuration import Study
from lsc.training.options import Duration
from lsc.training.run import Run

PATH = Path("config/schema.json")

_PART = "PartOf"


class _Generator(GenerateJsonSchema):
    def encode_default(self, default: Any) -> Any:
        return str(default) if isinstance(default, Duration) else super().encode_default(default)


def study_schema() -> dict[str, Any]:
    """The JSON schema of a study file, in the dialect 2020-12."""
    study = Study.model_json_schema(schema_generator=_Generator)
    run = Run.model_json_schema(schema_generator=_Generator)
    definitions = study.pop("$defs")
    for name, definition in (run.pop("$defs") | {"Run": run}).items():
        definitions[_PART + name] = _part(definition)
    part_of_run = {"$ref": f"#/$defs/{_PART}Run"}
    study["properties"]["run"] = part_of_run
    experiment = definitions["Experiment"]["properties"]
    experiment["run"] = part_of_run
    for block, content in ((experiment["variants"], part_of_run), (study["properties"]["experiments"], None)):
        (pattern, named), *_ = block["patternProperties"].items()
        block |= {"patternProperties": {pattern: content or named}, "additionalProperties": False}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return head | _tidied(study | {"$defs": dict(sorted(definitions.items()))})


def _part(schema: Any) -> Any:
    """``schema`` with no key required, and of any block whose settings fit where the name is left out.

    A block that takes any keys, such as that of something of one's own, keeps what it requires: it would match them all.
    """
    if isinstance(schema, list):
        return [_part(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    closed = schema.get("additionalProperties") is False
    part = {}
    for key, value in schema.items():
        if key == "$ref":
            part[key] = value.replace("#/$defs/", f"#/$defs/{_PART}")
        elif key != "required" or not closed:
            part["anyOf" if key == "oneOf" else key] = _part(value)
    return part


def _tidied(schema: Any, names: bool = False) -> Any:
    """``schema`` without what an editor has no use for: titles, whole blocks as defaults, all but a description's start.

    Args:
        names: the keys are those of a block and not words of JSON Schema.
    """
    if isinstance(schema, list):
        return [_tidied(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    tidied = {}
    for key, value in schema.items():
        if not names and (key == "title" or (key == "default" and isinstance(value, dict))):
            continue
        if not names and key == "description":
            tidied[key] = _first_paragraph(value)
        else:
            tidied[key] = _tidied(value, key in ("properties", "patternProperties", "$defs"))
    return tidied


def _first_paragraph(text: str) -> str:
    plain = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`|``(.+?)``", lambda match: match[1] or match[2], text)
    return " ".join(plain.partition("\n\n")[0].split())


def schema_text() -> str:
    """What ``config/schema.json`` holds."""
    return json.dumps(study_schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PATH.write_text(schema_text(), encoding="utf-8")
