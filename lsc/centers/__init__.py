"""Centers: from classes to vectors of a system, and from an embedding to the classes that are nearest.

``centers`` puts together who owns which vector (``ownership``, by a ``permutation`` or an ``assignment``) and by how much
it is displaced (``perturbation``).
"""

from lsc.centers.centers import Centers

__all__ = ["Centers"]
