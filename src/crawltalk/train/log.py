"""The log of a training: log.jsonl, and event files for TensorBoard."""

import json
import math
import time
from pathlib import Path
from typing import Any

from crawltalk.core.errors import UserError
from crawltalk.core.files import write_atomically

WATCHED_SECONDS = 2.0


class TrainingLog:
    """A log.jsonl: one row a step, and one an evaluation.

    It is written with each checkpoint, and in between for those who watch. Rows that are newer than the checkpoint
    that a training resumes from are dropped.
    """

    def __init__(self, path: str | Path, done: int, events: "TensorBoardEvents | None" = None) -> None:
        self.path, self.events = Path(path), events
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        self.rows: list[dict[str, Any]] = [row for row in map(json.loads, lines) if row["step"] < done]
        self.losses: list[float] = [row["loss"] for row in self.rows if "loss" in row]
        self._due = 0.0

    def add(self, row: dict[str, Any]) -> None:
        """Append a row."""
        row = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in row.items()
        }  # JSON has no NaN
        self.rows.append(row)
        self.losses += [row["loss"]] if "loss" in row else []
        if self.events is not None:
            self.events.add(row)

    def flush(self) -> None:
        """Write all rows, atomically."""
        write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in self.rows).encode())

    def flush_if_due(self) -> None:
        """The same every WATCHED_SECONDS, or as seldom as it takes to cost no more than 1 % of the time."""
        began = time.monotonic()
        if began >= self._due:
            self.flush()
            self._due = began + max(WATCHED_SECONDS, 100 * (time.monotonic() - began))

    def last_loss(self) -> float:
        """The mean loss over the last tenth of the steps, since that of one batch is noisy."""
        tail = self.losses[-max(1, len(self.losses) // 10) :]
        return round(sum(tail) / len(tail), 4)


class TensorBoardEvents:
    """The event files of a training, in `folder` / `name`. Steps that are done again replace their older rows."""

    def __init__(self, folder: str | Path, name: str, done: int) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise UserError(
                "machine.tensorboard needs tensorboardX; get it with: pip install tensorboardX"
            ) from None
        self._writer = SummaryWriter(str(Path(folder) / name), purge_step=done, filename_suffix=f".{done}")

    def add(self, row: dict[str, Any]) -> None:
        """Write the numbers of a row of the log."""
        for name, value in row.items():
            if name != "step" and isinstance(value, (int, float)):
                self._writer.add_scalar(name, value, row["step"])
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
