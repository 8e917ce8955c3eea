"""A stand-in for Characters, with the demo data's six characters."""

from http import HTTPStatus
from urllib.parse import unquote

from conversation_service.development.stand_ins.server import LOOPBACK, Call, Reply, StandIn

CHARACTERS = {
    "luna": ("Luna", "Dreams aloud, knows the night sky, answers in two languages."),
    "captain-nemo": ("Captain Nemo", "Explains the sea and avoids the land."),
    "ada": ("Ada Lovelace", "Turns questions into programs, and programs into poetry."),
    "sherlock": ("Sherlock Holmes", "Sees what you did this morning, and says so."),
    "don-quijote": ("Don Quijote", "Ve gigantes donde hay molinos."),
    "scheherazade": ("Scheherazade", "Begins a story each night, and stops before its end."),
}


def characters(port: int, *, host: str = LOOPBACK) -> StandIn:
    def get_all(call: Call) -> Reply:
        return HTTPStatus.OK, [_described(character_id) for character_id in CHARACTERS]

    def get_one(call: Call) -> Reply:
        character_id = unquote(call.path["id"])
        if character_id not in CHARACTERS:
            return HTTPStatus.NOT_FOUND, {"detail": "There is no such character"}
        return HTTPStatus.OK, _described(character_id)

    return StandIn(
        "characters-service",
        (host, port),
        [
            ("GET", "/api/v1/characters", get_all),
            ("GET", "/api/v1/characters/(?P<id>[^/]+)", get_one),
        ],
    )


def _described(character_id: str) -> dict[str, str]:
    name, description = CHARACTERS[character_id]
    return {"id": character_id, "name": name, "description": description}
