import pytest

from tests.deployment.manifests import ENVIRONMENTS, Manifest, release


@pytest.fixture(params=ENVIRONMENTS)
def environment(request) -> str:
    return request.param


@pytest.fixture
def rendered(environment) -> list[Manifest]:
    """Return the objects of a release, which a test must not change."""
    return release(environment)


@pytest.fixture
def traced(environment) -> list[Manifest]:
    return release(environment, "tracing")
