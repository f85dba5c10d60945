"""A backbone of one's own that was given to ``lsc.fit`` in Python."""

import hashlib
from typing import Annotated

from torch import nn

from lsc.errors import UserError
from lsc.parameters import Setting


def given(
    image_shape: tuple[int, int, int],
    kind: Annotated[str, Setting("class of the module")] = "",
    fingerprint: Annotated[str, Setting("digest of the names and shapes of its weights")] = "",
) -> nn.Module:
    """A module that was given in Python; it is had by giving it again."""
    raise UserError(
        f"encoder given: the network ({kind}) was made in Python; give it again, as lsc.fit(network, ...) or "
        "lsc.load(folder, backbone=network)"
    )


def fingerprint_of(module: nn.Module) -> str:
    """Twelve hex digits over the names and shapes of a module's weights and buffers."""
    shapes = "\n".join(f"{name} {tuple(value.shape)}" for name, value in module.state_dict().items())
    return hashlib.sha256(shapes.encode()).hexdigest()[:12]
