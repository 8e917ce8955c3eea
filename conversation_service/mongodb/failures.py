"""The errors that mean "unavailable", and the names of errors without their content.

A PyMongo error can contain documents and commands. Only its type, the name of its code and, for
connection errors, its reason are safe to log or print.
"""

import re
from collections.abc import Iterator
from typing import Any

from django.db import DatabaseError
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
)

from config.env import env
from config.local_run import NOT_RUNNING, NOWHERE

# By reason. The names and categories come from MongoDB's src/mongo/base/error_codes.yml.
_CODES_BY_REASON: dict[str, dict[int, str]] = {
    "The primary changes, stops, or cannot be reached by a mongos.": {
        6: "HostUnreachable",
        7: "HostNotFound",
        70: "ShardNotFound",
        89: "NetworkTimeout",
        91: "ShutdownInProgress",
        94: "NotYetInitialized",
        133: "FailedToSatisfyReadPreference",
        134: "ReadConcernMajorityNotAvailableYet",
        145: "PooledConnectionsDropped",
        149: "NoConfigPrimary",
        189: "PrimarySteppedDown",
        202: "NetworkInterfaceExceededTimeLimit",
        216: "ElectionInProgress",
        407: "PooledConnectionAcquisitionExceededTimeLimit",
        9001: "SocketException",
        10058: "LegacyNotPrimary",
        10107: "NotWritablePrimary",
        11600: "InterruptedAtShutdown",
        11602: "InterruptedDueToReplStateChange",
        13435: "NotPrimaryNoSecondaryOk",
        13436: "NotPrimaryOrSecondary",
        56846: "ConfigServerUnreachable",
        91331: "RetriableRemoteCommandFailure",
    },
    "A time limit of the server has passed.": {
        50: "MaxTimeMSExpired",
        262: "ExceededTimeLimit",
        290: "TransactionExceededLifetimeLimitSeconds",
    },
    "Another operation holds a lock or has written the same document.": {
        24: "LockTimeout",
        46: "LockBusy",
        107: "LockFailed",
        112: "WriteConflict",
        117: "ConflictingOperationInProgress",
        208: "TooManyLocks",
        251: "NoSuchTransaction",
        267: "PreparedTransactionInProgress",
        314: "ObjectIsBusy",
        363: "RetryableTransactionInProgress",
    },
    "An administrator or the server has interrupted the operation or closed its cursor.": {
        43: "CursorNotFound",
        175: "QueryPlanKilled",
        237: "CursorKilled",
        276: "IndexBuildAborted",
        279: "ClientDisconnect",
        281: "TransactionCoordinatorSteppingDown",
        282: "TransactionCoordinatorReachedAbortDecision",
        355: "InterruptedDueToStorageChange",
        371: "UserWritesBlocked",
        453: "InterruptedDueToReshardingCriticalSection",
        11601: "Interrupted",
        12586: "BackgroundOperationInProgressForDatabase",
        12587: "BackgroundOperationInProgressForNamespace",
        46841: "ClientMarkedKilled",
        10045600: "InterruptedDueToFCVChange",
    },
    "The snapshot that the operation reads is not available.": {
        239: "SnapshotTooOld",
        246: "SnapshotUnavailable",
        250: "StaleChunkHistory",
        272: "MigrationConflict",
    },
    "A mongos or shard does not yet know where the data is.": {
        63: "StaleShardVersion",
        150: "StaleEpoch",
        249: "StaleDbVersion",
        319: "MovePrimaryInProgress",
        338: "ReshardCollectionInProgress",
        342: "ReshardingCriticalSectionTimeout",
        343: "ShardCannotRefreshDueToLocksHeld",
        406: "MigrationBlockingOperationCoordinatorCleaningUp",
        9996: "RecvStaleConfig",
        13388: "StaleConfig",
        # A member has reported such a code without its details.
        40671: "Location40671",
    },
    "The server has too little memory, disk or capacity.": {
        146: "ExceededMemoryLimit",
        261: "TooManyLogicalSessions",
        264: "TooManyFilesOpen",
        365: "TemporarilyUnavailable",
        388: "TransactionTooLargeForCache",
        402: "ResourceExhausted",
        433: "AdmissionQueueOverflow",
        449: "RateLimitExceeded",
        450: "PooledConnectionAcquisitionRejected",
        462: "IngressRequestRateLimitExceeded",
        14031: "OutOfDiskSpace",
    },
    "A majority of the members has not confirmed the write.": {
        64: "WriteConcernTimeout",
        100: "UnsatisfiableWriteConcern",
    },
    "The account in MONGODB_URL lacks a permission.": {13: "Unauthorized"},
    "MongoDB rejects the account in MONGODB_URL.": {
        11: "UserNotFound",
        18: "AuthenticationFailed",
        391: "ReauthenticationRequired",
        8000: "AtlasError",
    },
}
_NAMES = {code: name for codes in _CODES_BY_REASON.values() for code, name in codes.items()}
_REASONS = {code: text for text, codes in _CODES_BY_REASON.items() for code in codes}
# With these labels a server says that the operation may succeed later, whatever its code is.
_LABELS = (
    "RetryableWriteError",
    "RetryableError",
    "SystemOverloadedError",
    "TransientTransactionError",
)
# Exit codes of commands. 3: a later run may succeed. 5: MONGODB_URL or the account is wrong.
NO_MONGODB, UNUSABLE_MONGODB = 3, 5
_UNUSABLE = re.compile(
    "lacks a permission|rejects the account|SSL handshake failed|available for replica set name"
)
# PyMongo's text if the server closes the connection without a reply.
_CLOSED = "connection closed"
# Parts of an error's text that repeat documents and replies, or differ at each attempt.
_LEFT_OUT = re.compile(
    r",? ?(full error: .*|\(configured timeouts: [^)]*\))|, Timeout: .*| after [\d.]+ seconds: .*",
    re.DOTALL,
)


def find(exc: BaseException) -> PyMongoError | None:
    """Return the PyMongo error if an exception means that MongoDB is unavailable, or else None.

    The ORM wraps PyMongo's errors in django.db.DatabaseError.
    """
    error = exc.__cause__ if isinstance(exc, DatabaseError) else exc
    if isinstance(error, PyMongoError) and is_unavailability(error):
        return error
    return None


def is_unavailability(error: PyMongoError) -> bool:
    """Return True if the same operation may succeed later.

    For a BulkWriteError: if any of its writes may succeed later. A write without the confirmation
    of a majority counts too.
    """
    unconfirmed = isinstance(error, BulkWriteError) and error.details.get("writeConcernErrors")
    return (
        isinstance(error, (ConnectionFailure, WriteConcernError))
        or bool(unconfirmed)
        or error.timeout
        or any(map(error.has_error_label, _LABELS))
        or any(code in _NAMES for code in _codes(error))
    )


def name(error: PyMongoError) -> str:
    """Return the error's type and the names of its codes, without any content."""
    codes = sorted({_NAMES.get(code, str(code)) for code in _codes(error)})
    return f"{type(error).__name__} ({', '.join(codes)})" if codes else type(error).__name__


def reason(error: BaseException) -> str:
    """Return why MongoDB cannot be used, as far as PyMongo knows, without content or password.

    The text of a connection error names the member as host:port.
    """
    if not isinstance(error, PyMongoError):
        return type(error).__name__
    explanations = sorted({_REASONS[code] for code in _codes(error) if code in _REASONS})
    if explanations:
        return f"{name(error)}. {' '.join(explanations)}"
    if not env("MONGODB_URL") and NOWHERE in str(error):
        return NOT_RUNNING
    if isinstance(error, ConnectionFailure) or type(error) is ConfigurationError:
        text = _LEFT_OUT.sub("", str(error)) or name(error)
        return f"{text}. The server may require TLS: tls=true" if text.endswith(_CLOSED) else text
    return name(error)


def exit_code(reason: str) -> int:
    """Return a command's exit code for a reason why MongoDB cannot be used."""
    return UNUSABLE_MONGODB if _UNUSABLE.search(reason) else NO_MONGODB


def _codes(error: PyMongoError) -> Iterator[int]:
    """Yield an error's code; for a BulkWriteError, the codes of its writes."""
    details: Any = getattr(error, "details", None)
    if isinstance(error, BulkWriteError):
        for failed in (*details.get("writeErrors", ()), *details.get("writeConcernErrors", ())):
            yield failed["code"]
    elif isinstance(error, OperationFailure):
        if error.code is not None:
            yield error.code
    elif isinstance(error, NotPrimaryError) and "code" in details:
        yield details["code"]
