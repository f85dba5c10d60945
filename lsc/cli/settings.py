"""``--set key=value``: one setting changed on the command line."""

from typing import Any

import yaml

from lsc.errors import UserError


def as_block(setting: str) -> dict[str, Any]:
    """``a.b=1`` as ``{"a": {"b": 1}}``; the value is YAML.

    Raises:
        UserError: there is no key, no equals sign, or the value is not YAML.
    """
    key, equals, value = setting.partition("=")
    if not equals or not key:
        raise UserError(f"--set {setting}: write it as key=value, e.g. training.learning_rate=0.01 or image_size=64")
    try:
        block: Any = yaml.safe_load(value)
    except yaml.YAMLError:
        raise UserError(f"--set {setting}: the value is not valid YAML") from None
    for part in reversed(key.split(".")):
        block = {part: block}
    return block
