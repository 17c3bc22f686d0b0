"""Sums in one Redis, shared by all replicas. What Redis forgets, the budget has forgotten too: let it keep its data.

redis (the extra `redis`) is imported when the books are made. No message holds the address or the password.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from streamgate_budget.amounts import NOTHING, Account, Amount, Unavailable
from streamgate_budget.books import Batch

# A write whose answer was lost is tried again; by its id it is counted once, as long as Redis remembers it.
REMEMBERED = 3600  # s
_WRITE = """
if not redis.call('SET', KEYS[1], '1', 'NX', 'EX', ARGV[1]) then return 0 end
for i = 2, #KEYS do
    local at = (i - 2) * 4 + 2
    redis.call('HINCRBY', KEYS[i], 'tokens', ARGV[at])
    redis.call('HINCRBY', KEYS[i], 'money', ARGV[at + 1])
    redis.call('HINCRBY', KEYS[i], 'requests', ARGV[at + 2])
    redis.call('EXPIREAT', KEYS[i], ARGV[at + 3])
end
return 1
"""


class RedisBooks:
    """`budget` is the plugin's name; all keys share its hash tag. `timeout` and `keep` in seconds."""

    def __init__(self, url: str, budget: str, *, timeout: float, keep: float) -> None:
        self._budget = budget
        self._keep = int(keep)
        self._client, self._errors = _connected(url, timeout)
        self._write = self._client.register_script(_WRITE)

    def open(self) -> None:
        """A gateway starts without its Redis: what then happens is `on_error`'s to say."""

    def write(self, batch: Batch) -> None:
        keys = [f"{self._prefix}batch:{batch.id}", *map(self._key, batch.charges)]
        values: list[int] = [REMEMBERED]
        for account, amount in batch.charges.items():
            values += [*amount, account.end + self._keep]
        self._asked(lambda: self._write(keys=keys, args=values))

    def read(self, accounts: Iterable[Account]) -> dict[Account, Amount]:
        asked = list(accounts)
        pipe = self._client.pipeline(transaction=False)
        for account in asked:
            pipe.hmget(self._key(account), "tokens", "money", "requests")
        return dict(zip(asked, map(_amount, self._asked(pipe.execute)), strict=True))

    def close(self) -> None:
        self._client.close()

    @property
    def _prefix(self) -> str:
        return f"{{streamgate-budget:{self._budget}}}:"

    def _key(self, account: Account) -> str:
        return f"{self._prefix}{account.period}:{account.start}:{account.tenant}"

    def _asked(self, call: Any) -> Any:
        try:
            return call()
        except (self._errors.RedisError, OSError) as error:
            raise Unavailable(type(error).__name__) from None


def _connected(url: str, timeout: float) -> tuple[Any, Any]:
    """A client for one thread, and the module of redis-py's errors."""
    try:
        import redis  # noqa: PLC0415 - the extra, wanted only by who has one
        from redis.backoff import NoBackoff  # noqa: PLC0415
        from redis.retry import Retry  # noqa: PLC0415
    except ImportError as absent:
        raise RuntimeError("A budget in Redis needs the extra: pip install 'streamgate-budget[redis]'") from absent
    try:
        client = redis.Redis.from_url(
            url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0), protocol=2
        )
    except ValueError:  # its text may hold a part of the password
        raise ValueError("redis: expected redis://[user:password@]host[:port][/database]") from None
    return client, redis.exceptions


def _amount(found: Sequence[bytes | None]) -> Amount:
    return NOTHING if found[0] is None else Amount(*(int(value or 0) for value in found))
