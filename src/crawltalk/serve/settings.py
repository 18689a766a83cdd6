"""The limits and secrets of a server."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Settings:
    keys: tuple[str, ...] = ()
    """API keys. Every request must bring one of them, as `Authorization: Bearer KEY` or `x-api-key: KEY`. None: no
    request needs a key.
    """
    rate: int | None = None
    """Requests a minute of one key (without keys: of one address)."""
    timeout: float = 600.0
    """Seconds for one request, from its body to its last token."""
    body_timeout: float = 20.0
    """Seconds in which a body must arrive."""
    max_body: int = 4_000_000
    """Bytes."""
    hosts: tuple[str, ...] | None = None
    """The host names that requests may use, which stops DNS rebinding: a foreign page can bind its own name
    to this server's address, but cannot change the name. None: any.
    """
    origins: tuple[str, ...] = ()
    """The origins whose pages may ask this server, beside its own page: `http://localhost:5173`, `null` (a file).
    `*` in one stands for letters, digits and hyphens, as in `http://localhost:*`; alone it allows all.
    """
    max_tokens: int | None = None
    """Tokens of a chat reply whose request does not say how many. None: as many as the context has room for."""
    log_prompts: bool = False
    """Whether prompts and replies are written to the log."""
