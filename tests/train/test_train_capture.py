"""Where captures happen."""

import pytest
import torch

from fastpose.nn import capture


@pytest.mark.parametrize("named", ["cuda", "cuda:1"])
def test_the_current_device_and_its_number_have_one_stream(monkeypatch, named):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: (object(), device))
    capture._stream.cache_clear()
    try:
        stream = capture.capture_stream(torch.device(named))
        assert stream is capture.capture_stream(torch.device("cuda", 1))
        assert stream is not capture.capture_stream(torch.device("cuda", 0))
        assert stream[1] == torch.device("cuda", 1)
    finally:
        capture._stream.cache_clear()
