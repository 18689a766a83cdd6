"""What the server allows."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Limits and secrets of a server."""

    keys: tuple[str, ...] = ()
    """One of them must come with every request, as `Authorization: Bearer KEY`; none: anybody may ask."""
    rate: int | None = None
    """Requests a minute of one key (without keys: of one address)."""
    timeout: float = 600.0
    """Seconds for one request, from its body to its last token."""
    body_timeout: float = 20.0
    """Seconds in which a body must have come."""
    max_body: int = 4_000_000
    """Bytes."""
    hosts: tuple[str, ...] | None = None
    """Names by which the server may be called (a page of elsewhere whose name was bound anew has another
    one); None: any.
    """
    log_prompts: bool = False
    """Whether what people write and what models answer goes into the log."""
