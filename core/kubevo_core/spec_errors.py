"""The sentences about a bad Experiment: where, expected, actual, cure; one line for each problem."""

import difflib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

__all__ = ["sentence", "suggestion"]

# Keyed by pydantic's error types; {input} is the offending value, the rest its context.
_SENTENCES = {
    "missing": "is required and missing",
    "int_type": "expected an integer, got {input}",
    "int_from_float": "expected an integer, got {input}",
    "bool_type": "expected true or false, got {input}",
    "string_type": "expected a text, got {input}",
    "dict_type": "expected a mapping, got {input}",
    "model_type": "expected a mapping, got {input}",
    "model_attributes_type": "expected a mapping, got {input}",
    "tuple_type": "expected a list, got {input}",
    "literal_error": "expected {expected}, got {input}",
    "greater_than_equal": "expected at least {ge}, got {input}",
    "less_than_equal": "expected at most {le}, got {input}",
    "string_too_long": "expected at most {max_length} characters, got {input}",
    "string_too_short": "expected at least {min_length} characters, got {input}",
    "too_long": "expected at most {max_length} items, got {actual_length}",
}


def sentence(root: type[BaseModel], error: Mapping[str, Any]) -> str:
    """Return what one of pydantic's errors about a ``root`` says to the person who wrote it."""
    where = ".".join(str(part) for part in error["loc"] if part != "[key]") or "the document"
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{where}: unknown field{suggestion(root, error['loc'])}"
    if kind == "value_error":
        return f"{where}: {context['error']}"
    shown = _shown(error["input"])
    said = _SENTENCES.get(kind, error["msg"]).format(input=shown, **context)
    if kind == "string_type" and isinstance(error["input"], (int, float)):
        said += f'; put it in quotes: "{shown}"'
    return f"{where}: {said}" if kind != "missing" else f"{where} {said}"


def suggestion(root: type[BaseModel], location: tuple[Any, ...]) -> str:
    """Return the end of a sentence about an unknown field: the one that was meant, or all."""
    model: Any = root
    for part in location[:-1]:
        fields = {info.alias or name: info for name, info in model.model_fields.items()}
        annotation = fields[part].annotation if part in fields else None
        options = [annotation, *getattr(annotation, "__args__", ())]
        model = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
        if model is None:
            return ""
    names = [info.alias or name for name, info in model.model_fields.items()]
    close = difflib.get_close_matches(str(location[-1]), names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known here: {', '.join(names)}"


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
