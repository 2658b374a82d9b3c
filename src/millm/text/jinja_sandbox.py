"""Compile chat templates as Hugging Face does and run them as untrusted programs, in a sandbox.

The sandbox bounds what a template can reach and how much text it can write, not how long it runs: a template that
loops for hours is not stopped. The conventions are those of transformers'
`chat_template_utils._compile_jinja_template`.
"""

import json
from collections.abc import Callable, Iterable
from datetime import datetime

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.parser
import jinja2.utils
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from millm.errors import InvalidModel, InvalidRequest

MAX_TEMPLATE_CHARACTERS = 256_000
MAX_RENDERED_CHARACTERS = 16_000_000  # a million tokens of long words: longer than any context
_RENDER_FAILURES = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""Exceptions that a template can raise, by mistake or on purpose."""


class TemplateProgram:
    """A compiled chat template."""

    variables: frozenset[str]  # names that the template reads without defining them

    def __init__(self, source: str) -> None:
        """Raises InvalidModel for a template that is too long or is not valid Jinja."""
        if len(source) > MAX_TEMPLATE_CHARACTERS:
            raise InvalidModel(
                f"the model's chat template has {len(source)} characters; at most {MAX_TEMPLATE_CHARACTERS} are read"
            )
        environment = _create_environment()
        try:
            self._template = environment.from_string(source)
            self.variables = frozenset(jinja2.meta.find_undeclared_variables(environment.parse(source)))
        except (*_RENDER_FAILURES, SyntaxError) as error:
            raise InvalidModel(f"the model's chat template is not valid: {one_line(str(error))}") from error

    def run(self, **variables: object) -> str:
        """Render. Raises InvalidRequest with the template's own message when it rejects the conversation."""
        pieces: list[str] = []
        room = MAX_RENDERED_CHARACTERS
        try:
            for piece in self._template.generate(**variables):
                pieces.append(piece)
                room -= len(piece)
                if room < 0:
                    raise SecurityError(f"it wrote more than {MAX_RENDERED_CHARACTERS} characters")
        except _RENDER_FAILURES as error:
            raise InvalidRequest(
                f"the model's chat template refused the conversation: {one_line(str(error))}", param="messages"
            ) from error
        return "".join(pieces)


def _create_environment() -> jinja2.Environment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    environment.globals["dict"] = _Dict()
    environment.globals["namespace"] = _Namespace
    return environment


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}` marks assistant text for training; here its content is rendered unchanged."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 declares it so)

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_content"), [], [], body).set_lineno(line)

    def _content(self, caller: Callable[[], str]) -> str:
        return caller()


class _Dict:
    """`dict` as a function: the class has methods that could change values the sandbox protects."""

    def __call__(self, items: Iterable[tuple[str, object]] = (), **named: object) -> dict[str, object]:
        return dict(items, **named)

    def fromkeys(self, keys: Iterable[str], value: object = None) -> dict[str, object]:
        return dict.fromkeys(keys, value)


class _Namespace(jinja2.utils.Namespace):
    """`namespace` whose attributes cannot shadow Python's own attributes."""

    def __init__(*arguments: object, **named: object) -> None:
        self, *items = arguments
        attributes = dict(*items, **named)
        for name in attributes:
            _check_attribute(name)
        jinja2.utils.Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: object) -> None:
        _check_attribute(name)
        super().__setitem__(name, value)


def _check_attribute(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold {name!r}: it starts with an underscore")


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML, which would reach the model."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def one_line(text: str) -> str:
    """The text without line breaks, at most 200 characters."""
    words = " ".join(text.split())
    return words if len(words) <= 200 else words[:199] + "…"
