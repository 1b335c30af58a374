"""MeterValues of OCPP 1.6 against the usual way; ``compare`` says how it is measured.

Load: MeterValues of ten sampled values, as fast as each station gets its answers.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.compare import Contest, main
from bench.stations import Station16

CONTEST = Contest(
    stations=Station16,
    usual_way="usual_way.py",
    rows_sql="SELECT count(*) FROM journal WHERE kind = 'MeterSampled'",
)

if __name__ == "__main__":
    sys.exit(main(CONTEST))
