"""One trained bundle for all tests of what is believed and decided."""

import pytest

from tests.training_world.beliefs import Trained, train


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A bundle trained on 10,000 random decisions of a world of easily annoyed customers, and the same customers' next weeks."""
    return train(tmp_path_factory.mktemp("trained"))
