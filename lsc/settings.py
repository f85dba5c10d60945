"""Blocks of settings: read strictly, with every mistake named by its key, and digested.

The configuration is made of pydantic models. Where a block's keys depend on its ``name`` (an objective, an encoder, a data
set), the model is that of the thing named, made from its own declaration when it is asked for.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, GetPydanticSchema, ValidationError, create_model
from pydantic_core import core_schema

from lsc.errors import UserError
from lsc.parameters import settings_of
from lsc.registry import Registry

Model = TypeVar("Model", bound=BaseModel)

_AS_BEFORE = "as_before"

# It makes settings, and these have a digest of their own.
CHANGES_NO_RESULT = True


class Strict(BaseModel):
    """A block of settings: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Block(Strict):
    """A block whose ``name`` says what it is of, and so which further keys it has."""

    name: str


class Problem(Exception):
    """A mistake in a block: where it is, below the block, and what it is.

    No ValueError, so that it passes through pydantic with its place.
    """

    def __init__(self, path: tuple[str, ...], message: str, more: int = 0) -> None:
        super().__init__(message)
        self.path, self.message, self.more = path, message, more

    def below(self, place: tuple[str, ...]) -> "Problem":
        return Problem((*place, *self.path), self.message, self.more)


def later(default: Any, *, as_before: Any, **constraints: Any) -> Any:
    """A pydantic field for a key that came after its block: ``as_before`` is the value that means what was done before.

    Blocks with that value keep the digest that they had; see :func:`digest`.
    """
    return Field(default, json_schema_extra={_AS_BEFORE: as_before}, **constraints)


@lru_cache(maxsize=256)
def block_model(registry: Registry, name: str, base: type[Block] = Block) -> type[Block]:
    """The model of the block of ``name``: the thing's own, or made from the settings that it declares.

    Raises:
        UserError: the name is unknown.
    """
    thing = registry[name]
    if isinstance(thing, type) and issubclass(thing, BaseModel):
        assert issubclass(thing, Block)
        return thing
    fields: dict[str, Any] = {"name": (Literal[name], name)}
    for key, parameter in settings_of(thing).items():
        setting = parameter.setting
        limits = {limit: value for limit in ("ge", "gt", "le", "lt") if (value := getattr(setting, limit)) is not None}
        extra = {_AS_BEFORE: setting.as_before} if setting.came_later else None
        field = Field(parameter.default, description=setting.description or None, json_schema_extra=extra, **limits)
        fields[key] = (parameter.annotation, field)
    model: type[Block] = create_model(f"{name} {registry.kind}", __base__=base, __doc__=thing.__doc__, **fields)
    return model


def block_of(registry: Registry, name: str, base: type[Block] = Block, **settings: Any) -> Block:
    """The block of ``name`` with ``settings``, all others at their defaults."""
    return validated(block_model(registry, name, base), {"name": name, **settings})


def named_block(registry: Registry, *place: str, base: type[Block] = Block, usual: str | None = None) -> Any:
    """The type of a field that holds the block of something of a registry.

    Args:
        place: the keys that lead to the field from the model that is validated, for messages.
        base: holds the keys that all blocks of this kind share.
        usual: the name where none is given; None: it must be.
    """

    def read(value: Any) -> Block:
        if isinstance(value, Block):
            return value
        if not isinstance(value, Mapping):
            raise Problem(
                place, f"must be a block with a name, such as {{name: {next(iter(registry))}}}, got {value!r}"
            )
        name = value.get("name", usual)
        if name is None:
            raise Problem((*place, "name"), f"Field required; known are {', '.join(registry)}")
        try:
            return _read(block_model(registry, str(name), base), dict(value))
        except Problem as problem:
            raise problem.below(place) from None
        except UserError as error:
            raise Problem(place, str(error)) from None

    def schema(_source: Any, _handler: Any) -> core_schema.CoreSchema:
        written = core_schema.plain_serializer_function_ser_schema(lambda block: block.model_dump(mode="json"))
        return core_schema.no_info_plain_validator_function(read, serialization=written)

    def json_schema(_core: Any, _handler: Any) -> dict[str, Any]:
        return _choice(registry, base, usual)

    return Annotated[Block, GetPydanticSchema(schema, json_schema)]


# Models whose schema is being written. A block within a block of its own kind (instances of a set) is of another name.
_UNDER_WAY: ContextVar[tuple[type[Block], ...]] = ContextVar("_UNDER_WAY", default=())


def _choice(registry: Registry, base: type[Block], usual: str | None) -> dict[str, Any]:
    """The JSON schema of a block of any name of a registry, or of something of one's own, whose settings are not known."""
    blocks = []
    for name in registry:
        model = block_model(registry, name, base)
        if model in _UNDER_WAY.get():
            continue
        token = _UNDER_WAY.set((*_UNDER_WAY.get(), model))
        try:
            block = _inlined(model.model_json_schema())
        finally:
            _UNDER_WAY.reset(token)
        block["properties"]["name"] = {"const": name}
        if name != usual:
            block["required"] = ["name", *(key for key in block.get("required", ()) if key != "name")]
        blocks.append(block)
    own = {"type": "object", "properties": {"name": {"type": "string", "pattern": ":"}}, "required": ["name"]}
    return {"oneOf": [*blocks, {"description": f"{registry.kind} of your own, module:attribute", **own}]}


def _inlined(schema: Any, definitions: Mapping[str, Any] | None = None) -> Any:
    """A JSON schema with its definitions put where they are referred to."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    definitions = schema.get("$defs", {}) if definitions is None else definitions
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(value, definitions) for key, value in schema.items() if key not in ("$defs", _AS_BEFORE)}


def _read(model: type[Model], settings: Any) -> Model:
    """The model of ``settings``; what is wrong with them is a :class:`Problem`."""
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        problems = error.errors()
    meant = settings
    for problem in problems:
        if problem["type"].startswith(("int_", "float_")) and isinstance(problem["input"], str):
            meant = _with_number(meant, problem["loc"])
    if meant is not settings:
        return _read(model, meant)
    problem, count = problems[0], len(problems)
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        near = get_close_matches(str(problem["loc"][-1]), _keys_at(model, problem["loc"][:-1]), 1)
        message = f"unknown key; did you mean {near[0]}?" if near else "unknown key"
    elif problem["type"] == "missing":
        message = "Field required"
    elif problem["type"] != "value_error" and not isinstance(problem["input"], dict):
        message = f"{message}, got {problem['input']!r}"
    raise Problem(tuple(str(part) for part in problem["loc"]), message, count - 1)


def _keys_at(model: Any, place: tuple[int | str, ...]) -> list[str]:
    """The keys of the block at ``place`` within a model; none where the models do not tell."""
    for part in place:
        field = getattr(model, "model_fields", {}).get(part)
        model = None if field is None else field.annotation
    return list(getattr(model, "model_fields", {}))


def validated(model: type[Model], settings: Any, where: str = "") -> Model:
    """The model of ``settings``.

    Args:
        where: what the keys belong to, for the message.

    Raises:
        UserError: one line that names the key.
    """
    try:
        return _read(model, settings)
    except Problem as problem:
        key = ".".join(filter(None, (where, *problem.path)))
        more = f" (and {problem.more} more)" if problem.more else ""
        raise UserError(f"{key}: {problem.message}{more}" if key else f"{problem.message}{more}") from None


# What YAML 1.1 takes for text and YAML 1.2, like everybody, for a number: an exponent without a point or a sign.
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


def _with_number(settings: Any, place: tuple[int | str, ...]) -> Any:
    """Settings with ``1e3`` at ``place``, where a number is wanted, as the number that was meant; themselves where it is none."""
    if isinstance(settings, str):  # below it a place has the kinds of number that are wanted
        if not _NUMBER.fullmatch(settings):
            return settings
        number = float(settings)
        return int(number) if number.is_integer() else number
    if not place:
        return settings
    key, below = place[0], place[1:]
    if not (key in settings if isinstance(settings, Mapping) else isinstance(settings, list) and isinstance(key, int)):
        return _with_number(settings, below)  # one of several kinds that may stand there
    new = _with_number(settings[key], below)
    if new is settings[key]:
        return settings
    changed: Any = dict(settings) if isinstance(settings, Mapping) else list(settings)
    changed[key] = new
    return changed


def digest(model: BaseModel, leave_out: Callable[[str], bool] = lambda key: False) -> str:
    """Twelve hex digits of the SHA-256 of a block's settings, defaults included.

    A key that came later (:func:`later`, or ``as_before`` of :class:`lsc.parameters.Setting`) and has the value that
    means "as before" is left out: so a new key changes the digest of no block that does not use it, while a changed
    default, or a changed value, does.
    """
    kept = {key: value for key, value in _kept(model).items() if not leave_out(key)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def _kept(model: BaseModel) -> dict[str, Any]:
    plain = model.model_dump(mode="json")
    kept = {}
    for key, field in type(model).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and _AS_BEFORE in extra and plain[key] == extra[_AS_BEFORE]:
            continue
        value = getattr(model, key)
        kept[key] = _kept(value) if isinstance(value, BaseModel) else plain[key]
    return kept


def merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``change`` laid over it: blocks are merged, everything else is replaced.

    A block that names another thing (``name: ...``) replaces the old one whole, since the old one's settings are not its.
    """
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and value.get("name", old.get("name")) == old.get("name"):
            merged[key] = merge(old, value)
        else:
            merged[key] = value
    return merged


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; a missing, unreadable or wrong file is one line."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; give the path of a configuration file") from None
    except (yaml.YAMLError, ValueError) as error:  # such as a date that there is not
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold keys and values, e.g. 'study: demo'")
    return content
