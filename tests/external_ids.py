"""Ids of real issuers, and ids that break code without quoting."""

IDS = [
    "auth0|5f7c8ec7c33c6c004bbafe82",
    "google-oauth2|103547991597142817347",
    "a+b@example.com",
    "f:8e5f2e1c-1f2d-4c3b-9a8b-7c6d5e4f3a2b:0c1d2e3f-4a5b-6c7d-8e9f-0a1b2c3d4e5f.1",
    "spiffe://example.org/ns/default/sa/web",
    "https://example.org/users/7?tab=1&x=%2F#top",
    "/etc/../passwd",
    "..",
    ".",
    "%2e%2e%2f",
    "%",
    "$user_id",
    "$$NOW",
    "$literal.x",
    "{}",
    "}x{",
    "{a}b}",
    "a\\u0000\\",
    "\"quoted\" and 'single'".replace(" ", "_"),
    "<b>&amp;</b>",
    "`~!@#$%^&*()_+-=[]{}|;:,.<>?",
    "-x",
    "=SUM(A1)",
    "42",
    "a_b.c:d@e-f",
    "null",
    "u" * 65,
    "u" * 255,
    "".join(map(chr, range(0x21, 0x7F))),
]

NO_IDS = [
    *("", " ", "a b", " a", "a ", "a\n", "\n", "a\tb", "a\x00", "a\x7f", "u" * 256, "u" * 5_000),
    *("é", "\xa0", "ñandú", "用户", "\u212a", "\u037e", "\uff41", "a\u200b", "\u2028"),
]
