from pathlib import Path

import pytest
from pymongo import MongoClient

from conversation_service.development import valkey
from conversation_service.development.mongod import find, mongod
from conversation_service.development.process import CannotStart, free_port


def script(path: Path, *lines: str) -> str:
    """Write an executable that stands for a broken server."""
    path.write_text("\n".join(["#!/bin/sh", *lines]))
    path.chmod(0o755)
    return str(path)


def test_documents_survive_a_move_to_another_port(tmp_path):
    with mongod(tmp_path / "data") as url, MongoClient(url) as client:
        client.shop.fruit.insert_one({"_id": "apple"})

    with mongod(tmp_path / "data", port=free_port()) as url, MongoClient(url) as client:
        client.shop.fruit.insert_one({"_id": "pear"})
        assert client.shop.fruit.count_documents({}) == 2


def test_a_missing_system_library_is_named(tmp_path):
    broken = script(
        tmp_path / "mongod",
        "echo 'mongod: error while loading shared libraries: libcrypto.so.3: cannot open'",
        "exit 127",
    )

    with pytest.raises(CannotStart, match=r"libcrypto\.so\.3.*MONGODB_URL.*docker compose"):
        mongod(tmp_path / "data", binary=broken).__enter__()


def test_the_error_names_the_log_of_a_server_that_stops_at_once(tmp_path):
    broken = script(tmp_path / "mongod", "exit 3")

    with pytest.raises(CannotStart, match=rf"status 3.*{tmp_path}/data\.log"):
        mongod(tmp_path / "data", binary=broken).__enter__()


@pytest.mark.parametrize("find", [find, valkey.find])
def test_a_server_in_the_environment_of_another_user_is_used(find, monkeypatch):
    def refuse(path, mode):
        raise PermissionError(path)

    find()  # sets the mode of a new installation
    monkeypatch.setattr(Path, "chmod", refuse)

    assert find()


@pytest.mark.parametrize(("find", "variable"), [(find, "MONGODB_URL"), (valkey.find, "REDIS_URL")])
def test_the_error_lists_the_remedies_if_the_server_is_not_installed(find, variable, monkeypatch):
    monkeypatch.setattr("sys.path", [])
    monkeypatch.setenv("PATH", "")

    with pytest.raises(CannotStart, match=rf"wheel.*{variable}.*docker compose"):
        find()
