"""Fields that have another name now. An old name is refused, and the error says the new one."""

RENAMED: dict[str, str] = {
    "sft.arithmetic": "sft.tasks.arithmetic",
    "sft.spelling": "sft.tasks.spelling",
    "sft.identity": "sft.tasks.identity",
    "sft.refusals": "sft.tasks.refusal",
}
"""Old dotted name -> new one."""
