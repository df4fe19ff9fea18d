"""The learning curve: what is read from results.csv and what the picture shows."""

import cv2
import numpy as np
import pytest

from fastpose.errors import DataError, OutputError
from fastpose.train.curves import plot_curves, read_results

HEADER = "epoch,lr,loss,accuracy,AP,seconds,images_per_second"


def table(tmp_path, *rows, header=HEADER):
    path = tmp_path / "results.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def many_rows(count=12):
    rows = []
    for epoch in range(1, count + 1):
        score = f"{0.8 * epoch / count:.3f}" if epoch % 3 == 0 else ""
        lr = 1e-3 if epoch <= 8 else 1e-4
        rows.append(f"{epoch},{lr},{2e-3 / epoch},{0.9 * epoch / count},{score},9.5,420")
    return rows


def has_color(picture, rgb):
    return (np.abs(picture.astype(int) - np.array(rgb[::-1])).max(axis=2) < 12).sum()


def test_picture_shows_loss_accuracy_and_ap(tmp_path):
    plot_curves(table(tmp_path, *many_rows()), tmp_path / "new" / "curves.png")
    picture = cv2.imread(str(tmp_path / "new" / "curves.png"))
    assert picture.shape == (768, 960, 3)
    upper, lower = picture[:384], picture[384:]
    loss, ap, accuracy = (0xB0, 0x3A, 0x2E), (0x00, 0x72, 0xB2), (0xE6, 0x9F, 0x00)
    assert has_color(upper, loss) > 300
    assert has_color(lower, ap) > 300
    assert has_color(lower, accuracy) > 300
    assert has_color(lower, loss) == has_color(upper, ap) == 0


@pytest.mark.parametrize(
    ("rows", "header"),
    [
        pytest.param(["1,0.001,0.002,0.1,,9,400"], HEADER, id="one-epoch"),
        pytest.param(["1,0.001,,,,,"], HEADER, id="only-blanks"),
        pytest.param(["1,0.001,nan,nan,nan,9,400", "2,0.001,inf,0.2,0.1,9,400"], HEADER, id="nan-and-inf"),
        pytest.param(["1,0,0,0,0,0,0", "2,0,0,0,0,0,0"], HEADER, id="zeros"),
        pytest.param(["1,0.002", "2,0.001"], "epoch,loss", id="few-columns"),
        pytest.param(["1,0.5,60.2", "2,0.4,88.1"], "epoch,loss,Mean", id="percentages"),
        pytest.param(["1,0.001,0.002,0.1", "2,0.0"], HEADER, id="cut-row"),
    ],
)
def test_sparse_tables_are_drawn(tmp_path, rows, header):
    plot_curves(table(tmp_path, *rows, header=header), tmp_path / "curves.png")
    assert cv2.imread(str(tmp_path / "curves.png")).std() > 5


def test_reading_blanks_and_repeated_epochs(tmp_path):
    path = table(
        tmp_path, "2,1e-3,0.5,0.4,,1,1", "1,1e-3,0.9,0.1,0.2,1,1", "2,1e-3,0.4,0.5,0.3,1,1", ",1e-3,0.1"
    )
    found = read_results(path)
    assert found["epoch"].tolist() == [1, 2]
    assert found["loss"].tolist() == [0.9, 0.4]
    np.testing.assert_array_equal(read_results(table(tmp_path, "1,1e-3,0.9,0.1,"))["AP"], [np.nan])


def test_global_matplotlib_state_is_left_alone(tmp_path):
    import matplotlib.pyplot as plt

    plot_curves(table(tmp_path, *many_rows()), tmp_path / "curves.png")
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "no finished epoch", id="empty"),
        pytest.param(HEADER.encode(), "no finished epoch", id="header-only"),
        pytest.param(b"a,b\n1,2\n", "no finished epoch", id="other-columns"),
        pytest.param(HEADER.encode() + b"\n1,fast,0.1,0.2,0.3,1,1\n", "line 2: .*fast", id="text"),
        pytest.param(b"\xff\xfe\x00", "not a table", id="binary"),
    ],
)
def test_broken_table(tmp_path, content, message):
    path = tmp_path / "results.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        plot_curves(path, tmp_path / "curves.png")
    assert "results.csv" in str(caught.value)
    assert not (tmp_path / "curves.png").exists()


def test_missing_table(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        plot_curves(tmp_path / "none.csv", tmp_path / "curves.png")


def test_place_that_cannot_be_written(tmp_path):
    (tmp_path / "curves.png").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        plot_curves(table(tmp_path, *many_rows()), tmp_path / "curves.png")
