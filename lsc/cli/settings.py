"""``--set key=value``: one setting changed on the command line."""

from collections.abc import Iterable
from typing import Any

import yaml

from lsc.errors import UserError
from lsc.settings import merge


def changed(settings: dict[str, Any], changes: Iterable[str] | None) -> dict[str, Any]:
    """Settings with the ``changes``, each ``key=value``, laid over them one after another; see :func:`as_block`."""
    for change in changes or ():
        settings = merge(settings, as_block(change))
    return settings


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
    except ValueError as error:  # what looks like a date and is none
        raise UserError(
            f"--set {setting}: the value is not valid YAML ({error}); put text that looks like a date or a number in quotes: "
            f"--set '{key}=\"...\"'"
        ) from None
    for part in reversed(key.split(".")):
        block = {part: block}
    return block
