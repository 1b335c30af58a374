"""TransactionEvent of OCPP 2.0.1 against the usual way; ``compare`` says how.

Load: Updated with one MeterValue of ten sampled values, as fast as each station gets
its answers, under rising sequence numbers.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.compare import Contest, main
from bench.stations import Station201

CONTEST = Contest(
    stations=Station201,
    usual_way="usual_way_201.py",
    rows_sql=(
        "SELECT count(*) FROM journal WHERE kind = 'TransactionReported' "
        "AND json_extract(CAST(body AS TEXT), '$.step') = 'Updated'"
    ),
)

if __name__ == "__main__":
    sys.exit(main(CONTEST))
