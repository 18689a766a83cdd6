"""The connection to a Ray cluster, for whatever spreads its work over one (`pip install ray`)."""

import logging
from typing import Any

from crawltalk.core.errors import MissingInput
from crawltalk.recipe import Machine


def connect(machine: Machine) -> Any:
    """Ray, connected: the module itself. Raises MissingInput if it is not installed or there is no cluster at the
    address.
    """
    try:
        import ray
    except ImportError:
        raise MissingInput("--machine.executor ray needs Ray: pip install 'ray>=2.40'") from None
    if not ray.is_initialized():
        here: dict[str, Any] = (
            {} if machine.ray_address else {"num_cpus": machine.workers, "include_dashboard": False}
        )
        try:
            ray.init(machine.ray_address, logging_level=logging.ERROR, log_to_driver=False, **here)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise MissingInput(f"there is no Ray cluster at {machine.ray_address} ({error})") from None
    return ray
