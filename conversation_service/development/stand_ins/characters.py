"""A stand-in for Characters, with the six characters of the demo data."""

from http import HTTPStatus
from urllib.parse import unquote

from conversation_service.development.stand_ins.server import LOOPBACK, Call, Reply, StandIn

CHARACTERS = {
    "luna": ("Luna", "Dreams aloud, knows the night sky, answers in two languages."),
    "captain-nemo": ("Captain Nemo", "Explains the sea and avoids the land."),
    "ada": ("Ada Lovelace", "Turns questions into programs, and programs into poetry."),
    "sherlock": ("Sherlock Holmes", "Sees what you did this morning, and says so."),
    "don-quijote": ("Don Quijote", "Ve gigantes donde hay molinos."),
    "scheherazade": ("Scheherazade", "Tells a story a night, and stops before its end."),
}


def characters(port: int, *, host: str = LOOPBACK) -> StandIn:
    return StandIn(
        "characters-service",
        (host, port),
        [
            ("GET", "/api/v1/characters", _all),
            ("GET", "/api/v1/characters/(?P<id>[^/]+)", _one),
        ],
    )


def _all(call: Call) -> Reply:
    return HTTPStatus.OK, [_described(character_id) for character_id in CHARACTERS]


def _one(call: Call) -> Reply:
    character_id = unquote(call.path["id"])
    if character_id not in CHARACTERS:
        return HTTPStatus.NOT_FOUND, {"detail": "There is no such character"}
    return HTTPStatus.OK, _described(character_id)


def _described(character_id: str) -> dict[str, str]:
    name, description = CHARACTERS[character_id]
    return {"id": character_id, "name": name, "description": description}
