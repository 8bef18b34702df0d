"""Every record of the journal could be believed and applied: the quarantine is empty.

Evidence: the number of quarantined records in PostgreSQL, beside all the moves that were projected. A record
whose digest does not match, or that does not decode, is set aside without harm to its neighbours; that is
right, and it is still an order or a charge that is not where it belongs, so no run with one passes.

It stops a writer and a reader of facts that have drifted apart, and the flipped byte in the append-only
file, which carries no checksum of its own.

It cannot see a record that decodes and lies; the stores are compared for that.
"""

from __future__ import annotations

from loadtests.checkers.case import Case
from loadtests.record.evidence import Evidence, Finding


def check(evidence: Evidence) -> Finding:
    """Return whether no record was set aside."""
    case = Case("nothing_quarantined")
    quarantined = evidence.postgres.quarantined
    case.checked = len(evidence.postgres.events) + quarantined
    if quarantined:
        case.against(f"{quarantined} records of the journal are in quarantine: select * from quarantine.")
    return case.close()
