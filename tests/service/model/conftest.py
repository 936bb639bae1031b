import pytest
import torch


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> None:
    """Bit-exactness is promised for one thread count, and a second thread only gets in the way of tiny tensors."""
    torch.set_num_threads(1)
