"""Each released vLLM in turn, for the tests that hold something against it."""

import pytest
import releases

VERSIONS = releases.released()


@pytest.fixture(scope="module", params=VERSIONS or [None])
def release(request):
    if request.param is None:
        pytest.skip("the package index does not answer, and no release is in the cache")
    archive = releases.fetch(request.param)
    if archive is None:
        pytest.skip(f"vLLM {request.param} cannot be fetched")
    return releases.Release(request.param, archive)
