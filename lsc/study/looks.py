"""How an objective is shown and what part it plays: as its own class says, for figures, tables and claims alike."""

from dataclasses import dataclass

from lsc.errors import UserError
from lsc.objectives import OBJECTIVES, CenterObjective

GREY = "#999999"

# The order in which figures and tables show objectives.
ROLES = ("baseline", "paper", "own", "rival")


@dataclass(frozen=True)
class Look:
    """Label, colour ("#rrggbb") and part of an objective; see :class:`lsc.objectives.Objective`.

    Attributes:
        has_centers: its classes have predefined centers, not a row of a layer each.
    """

    label: str
    color: str
    role: str = "own"
    pulls_by: str | None = None
    has_centers: bool = False


def is_known(objective: str) -> bool:
    """Whether an objective can be imported."""
    try:
        OBJECTIVES[objective]
    except (UserError, ImportError):
        return False
    return True


def look_of(objective: str) -> Look:
    """The look of an objective by its registered name, or "module:attribute".

    Records outlive code: an objective that cannot be imported any more is shown by its name, in grey.
    """
    if not is_known(objective):
        return Look(objective, GREY)
    kind = OBJECTIVES[objective]
    return Look(
        label=getattr(kind, "label", objective),
        color=getattr(kind, "color", GREY),
        role=kind.role,
        pulls_by=getattr(kind, "pulls_by", None),
        has_centers=issubclass(kind, CenterObjective),
    )
