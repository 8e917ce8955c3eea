"""In a gevent worker, requests to upstreams keep their time budget."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_under_gevent_the_budget_is_kept_and_no_request_blocks_others():
    done = subprocess.run(
        [sys.executable, "-m", "tests.conversation_service.upstreams.greenlets"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]
