"""Bugs on purpose. Each is small, plausible, and was once a real bug of some database, or of ours."""

from mutants.catalogue.admission import ADMISSION
from mutants.catalogue.clerk import CLERK
from mutants.catalogue.election import ELECTION
from mutants.catalogue.machine import MACHINE
from mutants.catalogue.membership import MEMBERSHIP
from mutants.catalogue.mutant import FOCUSES, Mutant
from mutants.catalogue.pressure import PRESSURE
from mutants.catalogue.reads import READS
from mutants.catalogue.replica import REPLICA
from mutants.catalogue.replication import REPLICATION
from mutants.catalogue.sessions import SESSIONS
from mutants.catalogue.snapshots import SNAPSHOTS
from mutants.catalogue.storage import STORAGE

__all__ = ["FOCUSES", "MUTANTS", "Mutant"]

MUTANTS = (
    *ELECTION,
    *REPLICATION,
    *READS,
    *REPLICA,
    *MACHINE,
    *SESSIONS,
    *STORAGE,
    *SNAPSHOTS,
    *ADMISSION,
    *MEMBERSHIP,
    *PRESSURE,
    *CLERK,
)
