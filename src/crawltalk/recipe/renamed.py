"""Fields that have another name now. An old name is refused, and the error says the new one."""

RENAMED: dict[str, str] = {}
"""Old dotted name -> new one."""
