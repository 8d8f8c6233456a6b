"""Label files are read as they are stored: palettes against Pillow, colours exactly, damage in words."""

import cv2
import numpy as np
import pytest
from PIL import Image

from splitmerge.errors import InputError
from training.datasets.layout import bit_colour
from training.datasets.reading import ForeignLabel, colour_decoder, read_values, value_decoder


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("colours", ["distinct", "all alike"])
def test_a_palette_png_gives_its_indices(tmp_path, bits, colours):
    """Against Pillow, whose `P` images are the indices; OpenCV itself decodes colours."""
    values = np.random.default_rng(bits).integers(0, 2**bits, (13, 21), dtype=np.uint8)
    palette = [v for i in range(2**bits) for v in (bit_colour(i) if colours == "distinct" else (9, 9, 9))]
    image = Image.fromarray(values, "P")
    image.putpalette(palette)
    image.save(tmp_path / "a.png", bits=bits, transparency=0)
    assert (tmp_path / "a.png").read_bytes()[24:26] == bytes([bits, 3])
    np.testing.assert_array_equal(read_values(tmp_path / "a.png"), values)
    np.testing.assert_array_equal(read_values(tmp_path / "a.png"), np.array(Image.open(tmp_path / "a.png")))


def test_a_palette_png_with_other_chunks_and_several_data_chunks(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (300, 400), dtype=np.uint8)
    image = Image.fromarray(values, "P")
    image.putpalette([v for i in range(256) for v in bit_colour(i)])
    image.save(tmp_path / "a.png", dpi=(72, 72), gamma=0.45, icc_profile=b"x" * 200)
    assert (tmp_path / "a.png").read_bytes().count(b"IDAT") > 1
    np.testing.assert_array_equal(read_values(tmp_path / "a.png"), values)


def test_a_damaged_palette_png_is_refused(tmp_path):
    path = tmp_path / "a.png"
    image = Image.fromarray(np.zeros((40, 40), np.uint8), "P")
    image.putpalette([1, 2, 3])
    image.save(path)
    whole = path.read_bytes()
    for broken in (whole[:-20], whole[:60], whole[:50] + bytes([whole[50] ^ 1]) + whole[51:]):
        path.write_bytes(broken)
        with pytest.raises(InputError, match=r"a\.png is a damaged PNG|a\.png is not an image"):
            read_values(path)


def test_gray_values_are_kept_and_others_refused(tmp_path):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    cv2.imwrite(str(tmp_path / "a.png"), values)
    np.testing.assert_array_equal(read_values(tmp_path / "a.png"), values)
    cv2.imwrite(str(tmp_path / "b.png"), values.astype(np.uint16))
    with pytest.raises(ForeignLabel, match=r"b\.png has 1 channel\(s\) of uint16"):
        read_values(tmp_path / "b.png")


def test_values_that_a_data_set_does_not_have(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.array([[0, 1], [7, 2]], np.uint8))
    assert value_decoder({0: 255, 1: 0, 2: 1, 7: 2}, "X")(tmp_path / "a.png").tolist() == [[255, 0], [2, 1]]
    with pytest.raises(ForeignLabel, match=r"a\.png holds value 7, which X does not have: its values are 0 to 2\."):
        value_decoder({0: 255, 1: 0, 2: 1}, "X")(tmp_path / "a.png")


def test_colours_are_exact(tmp_path):
    table = {(1, 2, 3): 0, (3, 2, 1): 1, (255, 255, 255): 255}
    rgb = np.array([[[1, 2, 3], [3, 2, 1]], [[255, 255, 255], [1, 2, 3]]], np.uint8)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    assert colour_decoder(table, "X")(tmp_path / "a.png").tolist() == [[0, 1], [255, 0]]
    rgb[1, 1] = 1, 2, 4
    Image.fromarray(rgb).save(tmp_path / "a.png")
    with pytest.raises(ForeignLabel, match=r"has the colour \(1, 2, 4\), red-green-blue, on one of 1 pixels that X"):
        colour_decoder(table, "X")(tmp_path / "a.png")
