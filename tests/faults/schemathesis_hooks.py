"""Bodies of imports for schemathesis, which knows no NDJSON. It has an environment of its own."""

import json

import schemathesis
from hypothesis import strategies as st

VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
LENIENT = st.fixed_dictionaries(
    {"character_id": st.just("luna")},
    optional={"title": VALUES, "external_id": VALUES, "tags": st.lists(VALUES), "status": VALUES},
)
LINE = LENIENT.map(json.dumps) | st.dictionaries(st.text(max_size=9), VALUES).map(json.dumps)
LINES = st.lists(LINE.map(str.encode) | st.binary(max_size=40), max_size=5).map(b"\n".join)

schemathesis.openapi.media_type("application/x-ndjson", LINES)
