"""What a module computes: its syntax tree without what is written for people and for type checkers.

Left out are comments, layout and docstrings; type hints, and what is imported for them alone; limits and descriptions of
settings; what exceptions, warnings and displayed lines say; the entries of a registry; and how an objective is shown.
"""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

CHANGES_NO_RESULT = True

_FOR_PEOPLE = ("description", "help")  # keywords of any call
_DEFAULTS = ("default", "default_factory")  # what a field says of a result
_SHOWN = ("label", "color", "role", "pulls_by")  # of an objective's class
_SAYS = ("print", "echo", "warn")
_DISPLAYS = ("display", "logger", "logging", "warnings")  # whatever is called of these


@dataclass(frozen=True)
class Source:
    """One module.

    Attributes:
        computes: its computation as text, the same on every version of Python; None: it says that no result depends on it.
        imports: local name -> the (module, attribute) that it may stand for; no attribute: the module itself.
        uses: what it computes with of the imported: a local name, then the attributes taken of it.
        defines: the names of its top level that are not imported.
        strings: entries of its dictionaries, text to text: names that are imported only when they are asked for stand there.
    """

    computes: str | None
    imports: dict[str, list[tuple[str, str | None]]]
    uses: list[tuple[str, ...]]
    defines: frozenset[str]
    strings: dict[str, str]


def read_source(text: str, package: str = "") -> Source:
    """The source of a module with content ``text``, which lies in ``package``."""
    tree = ast.parse(text)
    nodes = list(ast.walk(tree))
    imports, defines, strings = _imports(nodes, package), _defined(tree), _strings(nodes)
    marked = any(_marks(part) for part in tree.body)
    _Computing().visit(tree)
    nodes = _without_unread_text(tree)
    uses = sorted({chain for chain in _chains(nodes) if chain[0] in imports})
    return Source(None if marked else _as_text(tree), imports, uses, defines, strings)


class _Computing(ast.NodeTransformer):
    """Takes out of a tree what changes no number."""

    def visit_Import(self, node: ast.Import) -> None:
        return None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        return None

    def visit_If(self, node: ast.If) -> Any:
        if _name(node.test) == "TYPE_CHECKING":
            return None
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> Any:
        if any(_marks(part) for part in node.body):
            return None
        # The order of bare fields is that of the constructor's arguments here; elsewhere they are hints.
        if {"dataclass", "NamedTuple"} & {_name(part) for part in node.decorator_list + node.bases}:
            node.body = [_field_name(part) for part in node.body]
        node.body = [part for part in node.body if not _shows(part)]
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        if node.value is None:
            return None
        return self.generic_visit(ast.Assign(targets=[node.target], value=node.value))

    def visit_Assign(self, node: ast.Assign) -> Any:
        return None if _name(node.targets[0]) == "__all__" else self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> Any:
        value = node.value
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            return None
        if isinstance(value, ast.Call) and (_name(value.func) in _SAYS or _root(value.func) in _DISPLAYS):
            return None
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        node.exc, node.cause = node.exc.func if isinstance(node.exc, ast.Call) else node.exc, None
        return self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        node.msg = None
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        name = _name(node.func)
        if name == "Registry" or name.endswith(("Error", "Exception", "Warning")):
            node.args, node.keywords = [], []
        keep = _DEFAULTS if name in ("Field", "later") else None
        node.keywords = [
            word
            for word in node.keywords
            if word.arg not in _FOR_PEOPLE and (keep is None or word.arg is None or word.arg in keep)
        ]
        return self.generic_visit(node)


def _marks(part: ast.stmt) -> bool:
    """Whether a statement says that a module or a class changes no result."""
    return isinstance(part, ast.Assign) and _name(part.targets[0]) == "CHANGES_NO_RESULT"


def _shows(part: ast.stmt) -> bool:
    """Whether a statement of a class says how it is shown, and nothing else."""
    if isinstance(part, ast.AnnAssign):
        return _name(part.target) in _SHOWN and "ClassVar" in ast.unparse(part.annotation)
    if not isinstance(part, ast.Assign):
        return False
    targets = [name for target in part.targets for name in getattr(target, "elts", [target])]
    return all(_name(target) in _SHOWN for target in targets)


def _field_name(part: ast.stmt) -> ast.stmt:
    return ast.Expr(part.target) if isinstance(part, ast.AnnAssign) and part.value is None else part


def _without_unread_text(tree: ast.AST) -> list[ast.AST]:
    """The nodes that are left without text assigned to names that nobody reads: the parts of messages that were taken out."""
    while True:
        nodes = list(ast.walk(tree))
        read = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        complete = True
        for node in nodes:
            if isinstance(node, ast.Module | ast.ClassDef):
                continue  # others may read what these hold
            for field in ("body", "orelse", "finalbody"):
                block = getattr(node, field, None)
                if isinstance(block, list) and any(_is_unread_text(part, read) for part in block):
                    setattr(node, field, [part for part in block if not _is_unread_text(part, read)])
                    complete = False
        if complete:
            return nodes


def _is_unread_text(part: ast.stmt, read: set[str]) -> bool:
    return (
        isinstance(part, ast.Assign)
        and len(part.targets) == 1
        and isinstance(part.targets[0], ast.Name)
        and part.targets[0].id not in read
        and _is_text(part.value)
    )


def _is_text(value: ast.expr) -> bool:
    if isinstance(value, ast.IfExp):
        return _is_text(value.body) and _is_text(value.orelse)
    if isinstance(value, ast.BinOp):
        return _is_text(value.left) or _is_text(value.right)
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr in ("join", "format"):
        return _is_text(value.func.value)
    return isinstance(value, ast.JoinedStr) or (isinstance(value, ast.Constant) and isinstance(value.value, str))


def _name(node: ast.AST) -> str:
    """The last name of ``a``, ``a.b`` or ``a.b(...)``; "" for anything else."""
    if isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _root(node: ast.AST) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _chains(nodes: Sequence[ast.AST]) -> Iterator[tuple[str, ...]]:
    """Every name that is read, with the attributes that are taken of it: ``a.b.c`` is (a, b, c)."""
    inner = set()
    for node in nodes:  # breadth first, so that the whole of a chain comes before its parts
        if node in inner:
            continue
        attributes: list[str] = []
        place = node
        while isinstance(place, ast.Attribute):
            attributes.insert(0, place.attr)
            place = place.value
            inner.add(place)
        if isinstance(place, ast.Name):
            yield (place.id, *attributes)


def _imports(nodes: Sequence[ast.AST], package: str) -> dict[str, list[tuple[str, str | None]]]:
    found: dict[str, list[tuple[str, str | None]]] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                whole = alias.name if alias.asname else alias.name.partition(".")[0]
                found.setdefault(alias.asname or whole, []).append((whole, None))
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                found.setdefault(alias.asname or alias.name, []).append((module, alias.name))
    return found


def _defined(tree: ast.Module) -> frozenset[str]:
    names = set()
    for part in tree.body:
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(part.name)
        elif not isinstance(part, ast.Import | ast.ImportFrom):
            stored = (node for node in ast.walk(part) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
            names |= {node.id for node in stored}
    return frozenset(names)


def _strings(nodes: Sequence[ast.AST]) -> dict[str, str]:
    found = {}
    for node in nodes:
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                words = [part.value for part in (key, value) if isinstance(part, ast.Constant)]
                if len(words) == 2 and isinstance(words[0], str) and isinstance(words[1], str):
                    found[words[0]] = words[1]
    return found


def _as_text(node: Any) -> str:
    """A tree as text. ``ast.dump`` would write it otherwise on another version of Python."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if name not in ("ctx", "kind", "type_params"))
        inside = ",".join(f"{name}={_as_text(value)}" for name, value in fields if value not in (None, []))
        return f"{type(node).__name__}({inside})"
    return f"[{','.join(map(_as_text, node))}]" if isinstance(node, list) else repr(node)
