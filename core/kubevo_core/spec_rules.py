"""What the blocks of an Experiment are built with: rules and forms of texts, each said once.

A `Rule` holds one condition twice, in Python and in CEL, beside the one sentence that explains it; a
`Form` is one pattern that means the same here and in the API server (ASCII classes only). Both
travel in the models' JSON schema (``x-rules``, ``pattern`` and ``x-expected``), of which the custom
resource definition is made; a table of specs proves that the two verdicts agree.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel

__all__ = [
    "Form",
    "Rule",
    "SpecModel",
    "whole",
    "without_nulls",
]


@dataclass(frozen=True)
class Rule:
    """A condition on a block that no bound of a single field can say.

    ``{name}`` in the message stands for the value of that field (a path, such as
    ``environment.id``) or, if ``computed`` is that name, for what its two formulas give.
    """

    cel: str
    holds: Callable[[Any], bool]
    message: str
    field: str | None = None
    computed: tuple[str, str, Callable[[Any], int]] | None = None

    def sentence(self, block: BaseModel) -> str:
        """Return the message about ``block``."""
        document = block.model_dump(mode="json", by_alias=True)

        def value(match: re.Match[str]) -> str:
            if self.computed is not None and match[1] == self.computed[0]:
                return str(self.computed[2](block))
            found: Any = document
            for part in match[1].split("."):
                found = found[part]
            return str(found)

        return re.sub(r"\{([A-Za-z.]+)\}", value, self.message)

    def document(self) -> dict[str, Any]:
        """Return what the JSON schema carries: cel, message, field, computed."""
        computed = {self.computed[0]: self.computed[1]} if self.computed else {}
        return {
            "cel": self.cel,
            "message": self.message,
            "field": self.field,
            "computed": computed,
        }


@dataclass(frozen=True)
class Form:
    """The form of a text: a pattern that the whole text must match, and what to call it."""

    expected: str
    pattern: str

    def check(self, text: str) -> str:
        """Return ``text``.

        Raises:
            ValueError: it does not have the form.
        """
        if re.fullmatch(self.pattern, text, re.ASCII) is None:
            shown = text if len(text) <= 60 else f"{text[:57]}..."
            said = json.dumps(shown, ensure_ascii=False)
            raise ValueError(f"expected {self.expected}, got {said}")
        return text

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        """Add the form to what the JSON schema says of the text."""
        found: dict[str, Any] = handler(schema)
        return {**found, "pattern": f"^(?:{self.pattern})$", "x-expected": self.expected}


class SpecModel(BaseModel):
    """A block: unknown fields are errors, null is the same as absent, and RULES hold."""

    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", frozen=True, strict=True, validate_default=True
    )
    RULES: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _as_the_api_server_reads(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value  # pydantic says what was expected
        return {key: whole(item) for key, item in without_nulls(value).items()}

    @model_validator(mode="after")
    def _rules_hold(self) -> "SpecModel":
        for rule in self.RULES:
            if not rule.holds(self):
                raise ValueError(rule.sentence(self))
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        """Add the rules to what the JSON schema says of the block."""
        found: dict[str, Any] = handler.resolve_ref_schema(handler(schema))
        if cls.RULES:
            found["x-rules"] = [rule.document() for rule in cls.RULES]
        return found


def without_nulls(value: Any) -> Any:
    """Return a mapping without the names that are null, as the API server stores it."""
    if not isinstance(value, Mapping):
        return value
    return {key: item for key, item in value.items() if item is not None}


def whole(value: Any) -> Any:
    """Return 3 for 3.0, which JSON does not tell apart."""
    if isinstance(value, list):
        return [whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
