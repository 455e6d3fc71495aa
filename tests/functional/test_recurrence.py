"""The reverse recurrence against numbers by hand and against its written-out sum."""

import torch

from rlexp.functional.recurrence import reverse_recurrence


def test_numbers_by_hand() -> None:
    a, b = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 2.0, 10.0])
    # 3 + 10 x 1 = 13, 2 + 2 x 13 = 28, 1 + 0.5 x 28 = 15
    assert reverse_recurrence(a, b, torch.tensor(1.0)).tolist() == [15.0, 28.0, 13.0]


def test_equals_the_written_out_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(7, 3, 2, dtype=torch.float64, generator=generator) for _ in range(2))
    last = torch.randn(3, 2, dtype=torch.float64, generator=generator)
    x = reverse_recurrence(a, b, last)
    for t in range(7):
        # x_t = sum over k of a_k times the b's before it, and the last value behind all of them.
        total = b[t:].prod(0) * last
        for k in range(t, 7):
            total = total + b[t:k].prod(0) * a[k]
        torch.testing.assert_close(x[t], total, rtol=1e-12, atol=1e-12)


def test_one_row_and_inputs_untouched() -> None:
    a, b, last = torch.tensor([[2.0, 3.0]]), torch.tensor([[0.5, 0.0]]), torch.tensor([4.0, 4.0])
    assert reverse_recurrence(a, b, last).tolist() == [[4.0, 3.0]]
    assert a.tolist() == [[2.0, 3.0]]
    assert last.tolist() == [4.0, 4.0]
