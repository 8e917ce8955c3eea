"""The codes in `error.details.errors`, with their meaning and remedy for docs/guide/errors.md."""

from collections.abc import Mapping

FIELD_CODES: Mapping[str, tuple[str, str]] = {
    "required": ("The field is missing.", "Send the field."),
    "unknown_field": ("The field does not exist.", "Correct its name, or remove it."),
    "repeated": (
        "The query string has the parameter, or an object the key, more than once.",
        "Send the parameter or the key once.",
    ),
    "null": ("The field does not accept `null`.", "Send a value, or omit the field."),
    "invalid": (
        "The value has another JSON type or another form.",
        "Send the type or form that `message` names.",
    ),
    "plus": ("The `+` of an offset arrived as a space.", "Write `%2B` in a query string."),
    "invalid_choice": ("The value is not one of the possible values.", "Choose one of them."),
    "contradiction": (
        "The value contradicts another field, or excludes it.",
        "Change or remove one of the two.",
    ),
    "blank": ("The text is empty or has white space only.", "Send a text, or omit the field."),
    "invisible": ("The text has no visible character.", "Use at least one visible character."),
    "control": ("The text has control characters.", "Remove them."),
    "comma": ("A tag has a comma.", "Remove the comma, or send two tags."),
    "key": (
        "A key of the object has other characters, or more than 64.",
        "Use 1 to 64 ASCII letters, digits, `_`, `:` and `-`.",
    ),
    "min_length": ("The array has too few items.", "Send at least the number in `message`."),
    "max_length": (
        "The text has too many characters, the array too many items, or the object too many keys.",
        "Send at most the number in `message`.",
    ),
    "min_value": ("The number is too low.", "Send at least the number in `message`."),
    "max_value": ("The number is too high.", "Send at most the number in `message`."),
    "url_characters": (
        "The URL has characters that no URL can have.",
        "Percent-encode them, and write an international host name in Punycode.",
    ),
    "url_form": ("The URL is not absolute.", "Send a URL such as `https://example.org/hook`."),
    "url_scheme": ("The URL is not https.", "Use `https`."),
    "url_credentials": ("The URL has a user name or a password.", "Remove them."),
    "url_fragment": ("The URL has a fragment.", "Remove the `#` and the text after it."),
    "url_host": (
        "The host is not a public name, or an address in an unusual form.",
        "Use a full host name.",
    ),
    "url_port": ("The port is not allowed.", "Use a port that the operator allows, such as 443."),
    "url_address": (
        "The host has a private, local or special address.",
        "Use a host with public addresses only.",
    ),
    "in_the_future": (
        "The time is more than 5 minutes ahead of the clock of the database.",
        "Correct the clock of the sender.",
    ),
}
