from concurrent.futures import Future
from threading import Lock, Thread
from typing import Any

from django_mongodb_backend import base
from pymongo import MongoClient
from pymongo.errors import InvalidURI, PyMongoError, ServerSelectionTimeoutError

from conversation_service.mongodb import failures
from conversation_service.mongodb.engine.introspection import DatabaseIntrospection
from conversation_service.mongodb.engine.operations import DatabaseOperations
from conversation_service.mongodb.engine.schema import DatabaseSchemaEditor
from conversation_service.mongodb.monitor import LISTENERS, topology, watch
from conversation_service.mongodb.reachability import FIRST_REPLY_S, require_reply
from conversation_service.server import private

CONNECTING = "connecting to MongoDB"  # a thread's name

Client = MongoClient[Any]

_lock = Lock()
_attempts: dict[str, Future[Client]] = {}


class DatabaseWrapper(base.DatabaseWrapper):
    SchemaEditorClass = DatabaseSchemaEditor
    introspection_class = DatabaseIntrospection
    ops_class = DatabaseOperations

    def get_connection_params(self) -> dict[str, Any]:
        params = super().get_connection_params()  # type: ignore[no-untyped-call]
        return {"event_listeners": LISTENERS, **params}

    def get_new_connection(self, conn_params: dict[str, Any]) -> Client:
        """Return this process's client, shared by all threads and greenlets.

        PyMongo resolves the names in a mongodb+srv URL while it creates the client: outside
        timeoutMS, for up to 40 s. So a thread creates it, and callers wait no longer than for an
        operation. Raises ServerSelectionTimeoutError without a client; the next request tries
        again. A command, which has no time limit, fails within seconds if no member replies.
        """
        pools: dict[str, Client] = self._connection_pools
        if self.alias in pools:
            return pools[self.alias]
        with _lock:
            attempt = _attempts.get(self.alias)
            if attempt is None:
                attempt = _attempts[self.alias] = Future()
                arguments = (conn_params, attempt)
                Thread(target=self._connect, args=arguments, name=CONNECTING, daemon=True).start()
        is_request = conn_params["timeoutMS"] > 0
        limit_s = conn_params["timeoutMS"] / 1000 if is_request else FIRST_REPLY_S
        limit_s = private.remaining_timeout(limit_s)
        try:
            client = attempt.result(limit_s)
        except TimeoutError:
            reason = "its hosts are not resolved yet, the name server does not respond"
        except (InvalidURI, ValueError):  # their text may repeat a password
            reason = "it is not a valid URL; percent-encode the user and the password"
        except (PyMongoError, TypeError, OSError) as error:
            reason = failures.reason(error)
        else:
            if not is_request:
                require_reply(client, within_s=limit_s)
            return client
        topology.log_failure("MONGODB_URL", reason)
        raise ServerSelectionTimeoutError(f"MONGODB_URL: {reason}")

    def _connect(self, conn_params: dict[str, Any], attempt: "Future[Client]") -> None:
        try:
            client: Client = super().get_new_connection(conn_params)  # type: ignore[no-untyped-call]
        except (PyMongoError, ValueError, TypeError, OSError) as error:
            attempt.set_exception(error)
        else:
            watch(client)
            attempt.set_result(client)
        finally:
            del _attempts[self.alias]
