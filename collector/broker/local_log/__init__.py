"""The local durable log: the broker of the embedded form, in one SQLite file."""

from collector.broker.local_log.incidents import Incident, confirm, read_incidents
from collector.broker.local_log.limits import LocalLogLimits, LocalLogUnusable
from collector.broker.local_log.lineage import Epoch as LogStart
from collector.broker.local_log.log import LocalLog
from collector.broker.local_log.schema import FILE_NAME

__all__ = [
    "FILE_NAME",
    "Incident",
    "LocalLog",
    "LocalLogLimits",
    "LocalLogUnusable",
    "LogStart",
    "confirm",
    "read_incidents",
]
