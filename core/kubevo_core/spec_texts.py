"""The texts in an Experiment: names, ids, labels, and numbers in quotes; each one's form and length.

A form is judged by the same pattern here and in the API server: ASCII classes only, no look-around,
so that Python's and Go's expressions mean the same.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from kubevo_core.spec_rules import Form, whole

__all__ = [
    "ArgumentName",
    "DecimalText",
    "EnvironmentId",
    "JsonScalar",
    "LabelName",
    "LabelValue",
    "NamespaceName",
    "ObjectName",
    "Probability",
    "Quantity",
    "ResourceName",
    "Sigma",
    "Uid",
]


def _quantity(value: Any) -> Any:
    value = whole(value)
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if is_number and value >= 0 else value


@dataclass(frozen=True)
class _QuantityForm(Form):
    """A form whose JSON schema says that a whole number will do, too: cpu: 2."""

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {**super().__get_pydantic_json_schema__(schema, handler), "x-int-or-string": True}


_SIGMA = Form(
    'a decimal from 0.000001 to 10 in quotes, such as "0.002", without trailing zeros',
    r"10|[1-9](\.[0-9]{0,5}[1-9])?|0\.[0-9]{0,5}[1-9]",
)
_DECIMAL = Form(
    'a decimal number in quotes, such as "475"', r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,9})?"
)
_PROBABILITY = Form('a probability from "0" to "1" in quotes', r"0(\.[0-9]{1,9})?|1(\.0{1,9})?")
# No lone surrogate, and no number that is infinite: both would break later, in an evaluator.
_JSON_SCALAR = Form(
    """a JSON scalar as text, such as '-9.8', 'true' or '"hard"'""",
    r"null|true|false"
    r"|-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,64})?([eE](\+?[0-9]{1,2}|-[0-9]{1,3}))?"
    r'|"([^"\\\x00-\x1f]|\\(["\\/bfnrt]|u([0-9abcefABCEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2})))*"',
)
_ENVIRONMENT_ID = Form(
    "a text like CartPole-v1, ALE/Frostbite-v5 or module:Id-v0",
    r"([A-Za-z_][A-Za-z0-9_.]*:)?([A-Za-z0-9_-]+/)?[A-Za-z0-9_.-]+",
)
_ARGUMENT = Form(
    "the name of an argument (a letter or _, then letters, digits and _)", r"[A-Za-z_][A-Za-z0-9_]*"
)
_OBJECT_NAME = Form(
    "a text like my-search.2 (lower-case letters, digits, '-' and '.', none of these two at an end)",
    r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
)
_NAMESPACE = Form(
    "the name of a namespace: lower-case letters, digits and '-'", r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
)
_UID = Form("a uid, such as status shows it", r"[0-9a-f]([0-9a-f-]{0,62}[0-9a-f])?")
_QUANTITY = _QuantityForm(
    'a quantity such as "500m", "2" or "1.5Gi"',
    r"[0-9]{1,15}(\.[0-9]{1,9})?([numkMGTPE]|[KMGTPE]i|[eE][0-9]{1,2})?",
)
_RESOURCE = Form(
    "the name of a resource, such as cpu, memory or nvidia.com/gpu",
    r"([a-z0-9][a-z0-9.-]*/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?",
)
_LABEL_NAME = Form(
    "the name of a label, such as team or example.com/team",
    r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?",
)
_LABEL_VALUE = Form(
    "a label's value: letters, digits, '-', '_' and '.'",
    r"([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?",
)

Sigma = Annotated[str, Field(max_length=9), AfterValidator(_SIGMA.check), _SIGMA]
DecimalText = Annotated[str, Field(max_length=26), AfterValidator(_DECIMAL.check), _DECIMAL]
Probability = Annotated[str, Field(max_length=12), AfterValidator(_PROBABILITY.check), _PROBABILITY]
JsonScalar = Annotated[str, Field(max_length=256), AfterValidator(_JSON_SCALAR.check), _JSON_SCALAR]
EnvironmentId = Annotated[
    str, Field(max_length=128), AfterValidator(_ENVIRONMENT_ID.check), _ENVIRONMENT_ID
]
ArgumentName = Annotated[str, Field(max_length=64), AfterValidator(_ARGUMENT.check), _ARGUMENT]
ObjectName = Annotated[str, Field(max_length=52), AfterValidator(_OBJECT_NAME.check), _OBJECT_NAME]
NamespaceName = Annotated[str, Field(max_length=63), AfterValidator(_NAMESPACE.check), _NAMESPACE]
Uid = Annotated[str, Field(max_length=64), AfterValidator(_UID.check), _UID]
Quantity = Annotated[
    str,
    BeforeValidator(_quantity),
    Field(max_length=32),
    AfterValidator(_QUANTITY.check),
    _QUANTITY,
]
ResourceName = Annotated[str, Field(max_length=128), AfterValidator(_RESOURCE.check), _RESOURCE]
LabelName = Annotated[str, Field(max_length=317), AfterValidator(_LABEL_NAME.check), _LABEL_NAME]
LabelValue = Annotated[str, Field(max_length=63), AfterValidator(_LABEL_VALUE.check), _LABEL_VALUE]
