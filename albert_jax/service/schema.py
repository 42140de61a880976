"""What a request and an answer look like, and what is said of one that does not look so."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

# Characters of a name of the client's in a message.
_MAX_NAME = 40
# What fields other than `input` take.
_MUST_BE = {
    'model': 'a text',
    'top': 'a whole number from 1 to 20',
    'pooling': "'mean' or 'cls'",
    'normalize': 'true or false',
    'text': 'a text',
    'text_pair': 'a text',
    'max_new_tokens': 'a whole number, 1 or above',
}
# An example of a task with several fields. Without bool true would become 1.
Item = dict[str, str | bool | int | float | list[str]]


def _checked(given: Any, kinds: type | tuple[type, ...], wanted: str) -> Any:
    """The same, if every item is of these kinds and so is all that is in it.

    Stops at the first mistake. Pydantic would go on, and make several errors of every item: half a
    million of them within the limit of a body take it ten seconds.
    """
    for number, item in enumerate(given if isinstance(given, list) else [given]):
        parts: Iterable[Any] = item.values() if isinstance(item, dict) else ()
        if not isinstance(item, kinds) or not all(map(_is_part, parts)):
            place = f'input {number}' if isinstance(given, list) else 'input'
            raise PydanticCustomError('input', '{said}', {'said': f'{place} must be {wanted}'})
    return given


def _is_part(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(text, str) for text in value)
    return isinstance(value, str | int | float)


def _checked_items(given: Any) -> Any:
    return _checked(given, (str, dict), 'a text, or an object of texts and numbers')


def _checked_texts(given: Any) -> Any:
    return _checked(given, str, 'a text')


class _Strict(BaseModel):
    model_config = ConfigDict(extra='forbid')

    @model_validator(mode='before')
    @classmethod
    def _check_names(cls, content: Any) -> Any:
        """Stops at the first unknown field, too."""
        if isinstance(content, dict) and any(name not in cls.model_fields for name in content):
            name = next(name for name in content if name not in cls.model_fields)
            said = f'there is no field {clipped(name)}; this takes {", ".join(cls.model_fields)}'
            raise PydanticCustomError('extra_forbidden', '{said}', {'said': said})
        return content


_MODEL = Field(default=None, description='Name of a checkpoint; needed where several can answer.')


class PredictRequest(_Strict):
    """One text or several, or objects with the fields that /v1/models names."""

    input: Annotated[
        str | Item | list[str | Item],
        BeforeValidator(_checked_items),
        Field(examples=['A gripping, beautiful film.', ['Good.', 'Dull.']]),
    ]
    model: str | None = _MODEL


class FillMaskRequest(_Strict):
    """One text or several, with [MASK] where a piece is missing."""

    input: Annotated[
        str | list[str],
        BeforeValidator(_checked_texts),
        Field(examples=['The [MASK] barked all night.']),
    ]
    top: Annotated[int, Field(ge=1, le=20, strict=True, description='Pieces for each mask.')] = 5
    model: str | None = _MODEL


class EmbedRequest(_Strict):
    """One text or several."""

    input: Annotated[
        str | list[str], BeforeValidator(_checked_texts), Field(examples=[['A cat.', 'A dog.']])
    ]
    pooling: Annotated[Literal['mean', 'cls'], Field(description='Of the last layer.')] = 'mean'
    normalize: Annotated[bool, Field(strict=True, description='To length 1.')] = False
    model: str | None = _MODEL


class GenerateRequest(_Strict):
    """One source or several, for a model from text to text."""

    input: Annotated[
        str | list[str], BeforeValidator(_checked_texts), Field(examples=['Two dogs play.'])
    ]
    max_new_tokens: Annotated[
        int | None,
        Field(
            ge=1,
            strict=True,
            description="Where a text is cut; the model's own limit, which /v1/models tells, if "
            'left out.',
        ),
    ] = None
    model: str | None = _MODEL


class InspectRequest(_Strict):
    """A text, or a pair, to show attention and attributions for.

    For a model from text to text, a source and the text that the model wrote for it.
    """

    text: Annotated[str, Field(examples=['A dull, loud film.'])]
    text_pair: str | None = None
    model: str | None = _MODEL


class Answer(BaseModel):
    """`output` is a list where `input` was one."""

    model: str
    output: Any
    notes: list[str] | None = Field(
        default=None, description='Which inputs were cut, or have no text; only if some were.'
    )


class Refusal(BaseModel):
    """What went wrong, in one sentence."""

    error: str


REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {'model': Refusal, 'description': 'The body is not JSON in UTF-8.'},
    401: {'model': Refusal, 'description': 'The API key is missing or wrong.'},
    404: {'model': Refusal, 'description': 'There is no such model or path.'},
    405: {'model': Refusal, 'description': 'The path is for another method.'},
    408: {'model': Refusal, 'description': 'The body took too long to arrive.'},
    413: {'model': Refusal, 'description': 'The body, a text or their number is too large.'},
    422: {
        'model': Refusal,
        'description': 'A field is missing, unknown, there twice or of the wrong type.',
    },
    500: {'model': Refusal, 'description': 'A fault of the service.'},
    503: {'model': Refusal, 'description': 'Not ready yet, or too many texts are waiting.'},
    504: {'model': Refusal, 'description': 'No answer in time.'},
}


def error_response(error: RequestValidationError) -> tuple[int, str]:
    """The status of an invalid body, and what is wrong with it; never its content."""
    first = error.errors()[0]
    if first['type'] == 'json_invalid':
        return 400, 'The body is not JSON.'
    fields = [str(part) for part in first['loc'] if part != 'body']
    field = fields[0] if fields else 'the body'
    if first['type'] == 'missing' and fields:
        return 422, f'{field} is missing.'
    if said := first.get('ctx', {}).get('said'):
        return 422, f'{said[:1].upper()}{said[1:]}.' if not fields else f'{said}.'
    if not fields:
        return 422, 'The body must be a JSON object, sent as application/json.'
    return 422, f'{field} must be {_MUST_BE.get(field, "as /openapi.json says")}.'


def clipped(name: str) -> str:
    """A name of the client's as messages have it: in quotes, and not too long."""
    return repr(name if len(name) <= _MAX_NAME else f'{name[:_MAX_NAME]}…')
