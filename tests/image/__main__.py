"""`make check-image`: build the image and run it as development and staging do, on a real engine.

Takes minutes, needs root, Debian and its mirror, and no registry of images: stand-ins for the base
images are made of Debian packages. With `--registry` it uses the running Docker, and the real base
images. Where it cannot run, it says so; exits 0, and with CI in the environment 1.
"""

import shutil
import sys

from tests.config.processes import environment
from tests.image import checks
from tests.image.engine import enter
from tests.image.material import DATA, CannotRun, gather


def main() -> int:
    if sys.argv[1:] == ["--registry"]:
        DATA.mkdir(parents=True)
        try:
            checks.run(registry=True)
        finally:
            shutil.rmtree(DATA)
        return 0
    try:
        print("Gathering programs, packages and base images ...", flush=True)
        gather()
        shutil.rmtree(DATA, ignore_errors=True)
        return enter("tests.image.checks")
    except CannotRun as reason:
        print(f"SKIPPED: {reason}")
        return 1 if environment().get("CI") else 0
    finally:
        shutil.rmtree(DATA, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
