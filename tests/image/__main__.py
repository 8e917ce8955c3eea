"""`make check-image`: build the image and run it as development and staging do, on a real engine.

Takes minutes, needs root, Debian and its mirror, and no registry of images: stand-ins for the base
images are made of Debian packages. Where it cannot run, it says so and exits 0.
"""

import shutil
import sys

from tests.image.engine import enter
from tests.image.material import DATA, CannotRun, gather


def main() -> int:
    try:
        print("Gathering programs, packages and base images ...", flush=True)
        gather()
        shutil.rmtree(DATA, ignore_errors=True)
        return enter("tests.image.checks")
    except CannotRun as reason:
        print(f"SKIPPED: {reason}")
        return 0
    finally:
        shutil.rmtree(DATA, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
