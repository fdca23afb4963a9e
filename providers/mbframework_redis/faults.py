"""Redis' errors as ours: is it tried again, or must a person act? Pure functions."""

from __future__ import annotations

import ssl

from redis import exceptions

from mbframework.errors import ProviderUnusable, SendFailed

#: Tried again: what helps in the end, by the word in front of Redis' answer.
_RETRIED = {
    "BUSY": "a script of somebody else is running; wait, or end it with SCRIPT KILL",
    "CLUSTERDOWN": "the cluster has lost a part of its slots",
    "LOADING": "it reads its data after a start",
    "MASTERDOWN": "the replica has lost its primary",
    "MISCONF": "Redis cannot save its data, perhaps for want of room on its device; see its log",
    "NOREPLICAS": "fewer replicas than min-replicas-to-write are there",
    "NOSCRIPT": "somebody has thrown our script away; it is loaded again with the next connection",
    "OOM": "Redis is full; raise its maxmemory, let consumers trim the streams, or set maxlen",
    "READONLY": "this is a replica; give the primary, or several hosts of which the primary is used",
    "TRYAGAIN": "slots of the cluster are moving",
}
#: Only a person can change these.
_BLOCKED = {
    "ASK": "this is a node of a cluster; see MOVED in the provider's documentation",
    "CROSSSLOT": "in a cluster all keys must be in one slot; give a prefix with a hash tag, such as prefix={mb}:",
    "MOVED": "this is a node of a cluster, and the keys belong to the one that is named; give that node, and a prefix"
    " with a hash tag, such as prefix={mb}:",
    "NOAUTH": "Redis asks for a password; give one",
    "NOPERM": "grant +evalsha +script|load +get +set +type +xadd on the streams and our keys to this user",
    "NOPROTO": "the server is too old",
    "WRONGPASS": "check user name and password",
    "WRONGTYPE": "a topic's stream, or our position, has the name of a key of another type; set another prefix",
}
_WORDS: dict[type[BaseException], str] = {
    exceptions.AskError: "ASK",
    exceptions.AuthenticationError: "WRONGPASS",
    exceptions.AuthenticationWrongNumberOfArgsError: "WRONGPASS",
    exceptions.BusyLoadingError: "LOADING",
    exceptions.ClusterCrossSlotError: "CROSSSLOT",
    exceptions.ClusterDownError: "CLUSTERDOWN",
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.MovedError: "MOVED",
    exceptions.NoPermissionError: "NOPERM",
    exceptions.NoScriptError: "NOSCRIPT",
    exceptions.OutOfMemoryError: "OOM",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.TryAgainError: "TRYAGAIN",
}


def word(error: BaseException) -> str:
    """The word in front of Redis' answer; redis-py takes it away where it knows the error."""
    kept: str | None = getattr(error, "status_code", None)  # by redis-py 8 and later
    return kept or _WORDS.get(type(error)) or str(error).partition(" ")[0]


def translate(error: exceptions.RedisError, where: str) -> SendFailed | ProviderUnusable:
    """An error of redis-py with the next step."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ProviderUnusable(
                f"{where}: its certificate was refused: {cause.verify_message}; check tls_ca and the host name",
                provider="redis",
            )
        cause = cause.__cause__ or cause.__context__
    code = word(error)
    if code in _BLOCKED:
        return ProviderUnusable(f"{where}: {code}: {error}; {_BLOCKED[code]}", provider="redis")
    if "DB index" in str(error):
        return ProviderUnusable(f"{where}: {error}; give the number of a database that it has", provider="redis")
    advice = f"; {_RETRIED[code]}" if code in _RETRIED else ""
    return SendFailed(f"{where}: {error}{advice}", provider="redis")
