"""A server that speaks DeepInfra's wire on a local socket, with faults on demand and an exact bill."""

from resilient_ai.simulator.app import create_app
from resilient_ai.simulator.bill import Charge, Stats
from resilient_ai.simulator.faults import Fault, FaultPlan
from resilient_ai.simulator.server import serve
from resilient_ai.simulator.settings import Options, Settings
from resilient_ai.simulator.state import Simulator

__all__ = ["Charge", "Fault", "FaultPlan", "Options", "Settings", "Simulator", "Stats", "create_app", "serve"]
