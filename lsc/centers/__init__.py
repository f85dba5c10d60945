"""Centers: from classes to vectors of a system, and from an embedding to the classes that are nearest.

``centers`` puts together who owns which vector (``ownership``, by a ``permutation`` or an ``assignment``) and by how much
it is displaced (``perturbation``). ``coded`` is for systems too rich to be numbered: a class owns its vector as a packed code
(``codes``).
"""

from lsc.centers.centers import Centers
from lsc.centers.coded import CodedCenters, rich_system

__all__ = ["Centers", "CodedCenters", "rich_system"]
