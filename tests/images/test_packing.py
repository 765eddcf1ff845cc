"""Pictures as a viewer shows them, deep and odd ones, and everything that a decoder can meet."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from samples import BLUE, GREEN, GREY, RED, TREE, colours, encode, one_line, write_folder, write_tar

from lib.images import packing
from lib.images.data import load
from lib.study import paths

QUARTERS = np.zeros((8, 8, 3), np.uint8)  # red, green; blue, grey
QUARTERS[:4, :4], QUARTERS[:4, 4:], QUARTERS[4:, :4], QUARTERS[4:, 4:] = RED, GREEN, BLUE, GREY


def save(image: Image.Image | np.ndarray, kind: str, **how) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **how)
    return file.getvalue()


def packed(tmp_path: Path, *contents: bytes, size: int = 8, suffix: str = ".png") -> np.ndarray:
    """Pack files of the given bytes: (N, C, size, size)."""
    write_folder(tmp_path / "a", {f"{i:03d}{suffix}": content for i, content in enumerate(contents)})
    return load(f"folder:{tmp_path}/a", size).x.numpy()


def png(values: np.ndarray, kind: int, depth: int = 16) -> bytes:
    """A PNG of 16 bits a channel, after its specification: (H, W, C) -> bytes; kind 0 is grey, 2 colour."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


# --- as a viewer shows them ----------------------------------------------------------------------------------------

SHOWN = {  # EXIF orientation -> the stored image's quarters as they are to be shown, row by row
    1: "RGBg", 2: "GRgB", 3: "gBGR", 4: "BgRG", 5: "RBGg", 6: "BRgG", 7: "gGBR", 8: "GgRB",
}  # fmt: skip


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_camera_that_was_turned(tmp_path, orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    x = packed(tmp_path, save(QUARTERS, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {})))[0]
    shown = [tuple(x[:, row, column].tolist()) for row in (1, 6) for column in (1, 6)]
    assert shown == [{"R": RED, "G": GREEN, "B": BLUE, "g": GREY}[letter] for letter in SHOWN[orientation]]


def test_an_edge_is_resized_by_cubic_curves(tmp_path):
    """They overshoot on both sides of it: Keys' cubic with a = -1/2 at 0.25, 0.75, 1.25 and 1.75, by hand."""
    edge = np.full((8, 8), 100, np.uint8)
    edge[:, 4:] = 164
    row = packed(tmp_path, save(edge, "PNG"), size=16)[0, 0, 8]
    assert row.tolist() == [100] * 5 + [99, 96, 113, 151, 169, 166] + [164] * 5


def test_a_centre_is_cut_out_and_nothing_resized(tmp_path):
    places = 10 * np.arange(7)[:, None] + np.arange(5)  # of 7 x 5 pixels each says where it lies
    grey, colour = (save(x.astype(np.uint8), "PNG") for x in (places, np.stack([places, places, 0 * places], 2)))
    turned = Image.Exif()
    turned[0x0112] = 3  # upside down
    files = {"1.png": colour, "2.png": save(places.astype(np.uint8), "PNG", exif=turned)}
    files |= {"3.png": png(1000 * places[..., None], 0)}  # of 16 bits, of which the set fills all
    write_folder(tmp_path / "a", files)
    x = load(f"crop:folder:{tmp_path}/a", 3).x.numpy()
    assert x[0, 0].tolist() == x[0, 1].tolist() == [[21, 22, 23], [31, 32, 33], [41, 42, 43]] and not x[0, 2].any()
    assert x[1, 0].tolist() == [[43, 42, 41], [33, 32, 31], [23, 22, 21]]
    assert np.abs(x[2, 0] - np.array([[21, 22, 23], [31, 32, 33], [41, 42, 43]]) * 1000 / 257).max() <= 0.5
    write_folder(tmp_path / "b", {"1.png": grey, "2.png": grey})
    assert load(f"crop:folder:{tmp_path}/b", 5).x[0, 0, :, 0].tolist() == [10, 20, 30, 40, 50]
    with pytest.raises(ValueError, match=r"2.png: cannot be decoded .it has 5 x 7 pixels, too few to cut 6 x 6 out of"):
        load(f"crop:folder:{tmp_path}/b", 6)


def test_resized_and_cut_images_are_packed_apart(tmp_path):
    files = {"a/1.png": encode(np.kron(QUARTERS, np.ones((2, 2, 1), np.uint8)))}  # 16 x 16
    write_tar(tmp_path / "a.tar", files)
    whole, cut = load("tar:a.tar", 8), load("crop:tar:a.tar", 8)
    assert whole.x[0, :, 1, 1].tolist() == list(RED) and whole.checksum == load("tar:a.tar", 8).checksum
    assert cut.x[0, :, 3, 3].tolist() == list(RED) and cut.x[0, :, 4, 3].tolist() == list(BLUE)
    assert (cut.name, cut.checksum != whole.checksum) == ("crop:tar:a.tar", True)
    packs = sorted(path.name[:-12] for path in (paths.data_root() / "packed").iterdir() if path.is_dir())
    assert packs == ["crop-tar-a.tar-8-", "tar-a.tar-8-"]


def test_exif_that_nobody_can_read(tmp_path):
    assert colours_of(packed(tmp_path, save(QUARTERS, "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff broken"))) == [RED]


def colours_of(x: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(pixel) for pixel in x[:, :, 0, 0].tolist()]


def hidden(mode: str) -> Image.Image:
    """Red that is not to be seen, in any way to say so."""
    image = Image.new("RGBA", (8, 8), (*RED, 0))
    if mode == "P":
        image = Image.new("P", (8, 8), 0)
        image.putpalette([*RED, *BLUE])
        image.info["transparency"] = 0
    elif mode == "LA":
        image = Image.new("LA", (8, 8), (7, 0))
    return image


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(tmp_path, mode):
    image = hidden(mode)
    how = {"transparency": 0} if mode == "P" else {}
    assert packed(tmp_path, save(image, "PNG", **how)).min() == 255


def test_a_transparent_colour_of_a_colour_image(tmp_path):
    assert colours_of(packed(tmp_path, save(QUARTERS, "PNG", transparency=RED))) == [(255, 255, 255)]
    assert packed(tmp_path, save(QUARTERS, "PNG", transparency=RED))[0, :, 7, 7].tolist() == list(GREY)


def test_half_transparent_and_opaque(tmp_path):
    x = packed(tmp_path, *(save(Image.new("RGBA", (8, 8), (*RED, alpha)), "PNG") for alpha in (128, 255)))
    assert np.abs(x[0, :, 0, 0] - [227.4, 127, 127]).max() <= 1  # 255 - 127 * (255 - c) / 255
    assert colours_of(x)[1] == RED


def test_hidden_colours_do_not_bleed_into_the_edge(tmp_path):
    image = Image.new("RGBA", (64, 64), (*RED, 0))
    image.paste((255, 255, 255, 255), (0, 0, 32, 64))
    assert packed(tmp_path, save(image, "PNG")).min() == 255


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_frames_the_first_is_taken(tmp_path, capsys, kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    how = {"lossless": True} if kind == "WEBP" else {}
    x = packed(tmp_path, save(frames[0], kind, save_all=True, append_images=frames[1:], **how))
    assert colours_of(x) == [RED]
    assert f"1 images have several frames ({kind}), of which the first is taken" in capsys.readouterr().err


def test_a_telephones_picture_of_several_parts_is_one_picture(tmp_path, capsys):
    frames = [Image.new("RGB", (8, 8), GREY)] * 2
    packed(tmp_path, save(frames[0], "MPO", save_all=True, append_images=frames[1:]), suffix=".jpg")
    assert "frames" not in capsys.readouterr().err


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SWAPPED = SRGB.replace(b"rXYZ", b"?XYZ").replace(b"gXYZ", b"rXYZ").replace(b"?XYZ", b"gXYZ")  # red is called green
SWAPPED = SWAPPED.replace("sRGB".encode("utf-16-be"), "mine".encode("utf-16-be")).replace(b"sRGB", b"mine")


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_colours_of_another_profile_become_srgb(tmp_path, kind):
    how = {"lossless": True} if kind == "WEBP" else {}
    x = packed(tmp_path, save(QUARTERS, kind, icc_profile=SWAPPED, **how))[0]
    assert np.abs(x[:, 0, 0] - np.array(GREEN)).max() <= 1
    assert np.abs(x[:, 0, 7] - np.array(RED)).max() <= 1
    assert np.abs(x[:, 7, 0] - np.array(BLUE)).max() <= 1


@pytest.mark.parametrize(
    "profile", [SRGB, b"no profile", ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()]
)
def test_srgb_itself_and_useless_profiles_change_nothing(tmp_path, profile):
    assert np.array_equal(packed(tmp_path, save(QUARTERS, "PNG", icc_profile=profile))[0], QUARTERS.transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV"])
def test_other_modes(tmp_path, mode):
    kind = {"CMYK": "TIFF", "YCbCr": "JPEG", "HSV": "TIFF"}.get(mode, "PNG")
    image = Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode)
    if mode == "HSV":
        image = Image.new("RGB", (8, 8), (255, 255, 255))
    x = packed(tmp_path, save(image, kind), suffix=".img.jpg")
    assert x.shape == (1, 1 if mode in "1L" else 3, 8, 8)
    assert x.min() >= 254


def test_progressive_and_interlaced(tmp_path):
    image = Image.new("RGB", (64, 64), RED)
    x = packed(
        tmp_path, save(image, "JPEG", progressive=True, quality=95), save(image, "JPEG", quality=95), suffix=".jpg"
    )
    assert np.array_equal(x[0], x[1])


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 3000), (3000, 1), (7, 9)])
def test_sizes_from_one_pixel(tmp_path, width, height):
    assert colours_of(packed(tmp_path, save(Image.new("RGB", (width, height), RED), "PNG"))) == [RED]


def test_an_image_too_large_to_be_meant(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)  # refused from twice as many, warned of before
    assert len(packed(tmp_path, save(np.zeros((7, 7, 3), np.uint8), "PNG"))) == 1
    with pytest.raises(ValueError, match=r"001.png: cannot be decoded .Image size .64 pixels. exceeds limit"):
        packed(tmp_path, encode(RED), encode(RED))


# --- depth ---------------------------------------------------------------------------------------------------------


def ramp(most: int) -> np.ndarray:
    """Eight values from 0 to the largest, one a row: (8, 8, 1)."""
    return np.repeat(np.linspace(0, most, 8).round().astype(int)[:, None, None], 8, 1)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_grey_is_scaled_from_the_bits_that_the_set_fills(tmp_path, capsys, bits):
    x = packed(tmp_path, png(ramp(2**bits - 1), 0), png(ramp(2**bits - 1) // 2, 0))
    assert x.shape == (2, 1, 8, 8)
    assert x[0, 0, :, 0].tolist() == [0, 36, 73, 109, 146, 182, 219, 255]
    assert np.abs(x[1, 0, :, 0] - np.array([0, 18, 36, 55, 73, 91, 109, 127])).max() <= 1  # darker than the other
    assert f"scaled from the {bits} bits" in capsys.readouterr().err


def test_deep_grey_beside_grey_and_colour(tmp_path):
    x = packed(tmp_path, png(ramp(4095), 0), save(np.full((8, 8), 7, np.uint8), "PNG"), encode(RED))
    assert x.shape == (3, 3, 8, 8)
    assert x[0, 1, :, 0].tolist() == [0, 36, 73, 109, 146, 182, 219, 255]
    assert colours_of(x)[1:] == [(7, 7, 7), RED]


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_deep_tiffs(tmp_path, mode):
    values = ramp(4095)[..., 0]
    image = Image.fromarray(values.astype({"I": np.int32, "I;16": np.uint16, "I;16B": ">u2"}[mode]))
    assert image.mode == mode
    assert packed(tmp_path, save(image, "TIFF"), suffix=".tif")[0, 0, :, 0].tolist() == [
        0,
        36,
        73,
        109,
        146,
        182,
        219,
        255,
    ]


def test_floats_from_0_to_1_are_scaled(tmp_path):
    image = Image.fromarray((ramp(7)[..., 0] / 7).astype(np.float32))
    assert packed(tmp_path, save(image, "TIFF"), suffix=".tif")[0, 0, :, 0].tolist() == [
        0,
        36,
        73,
        109,
        146,
        182,
        219,
        255,
    ]


ODD = [np.float32([[0, 255]]), np.float32([[-1, 1]]), np.float32([[0, np.nan]])]
ODD += [np.int32([[0, 70_000]]), np.int32([[-5, 5]])]


@pytest.mark.parametrize("values", ODD)
def test_values_without_a_known_scale_are_refused_by_name(tmp_path, values):
    with pytest.raises(
        ValueError, match=r"000.tif: cannot be decoded .its values from .* have no known scale"
    ) as caught:
        packed(tmp_path, save(values, "TIFF"), suffix=".tif")
    one_line(caught)


def test_deep_colours(tmp_path):
    full = png(np.stack([ramp(65535)[..., 0]] * 3, -1), 2)
    assert packed(tmp_path, full)[0, 0, :, 0].tolist() == [0, 36, 73, 109, 146, 182, 219, 255]
    with pytest.raises(ValueError, match="16 bits a colour fill less than 14"):
        packed(tmp_path / "b", png(np.stack([ramp(4095)[..., 0]] * 3, -1), 2))


def test_a_set_without_contrast_is_told(tmp_path, capsys):
    packed(tmp_path, save(np.full((8, 8), 3, np.uint8), "PNG"), save(np.full((8, 8), 9, np.uint8), "PNG"))
    assert "a set without contrast: all its values lie between 3 and 9" in capsys.readouterr().err
    packed(tmp_path, save(np.full((8, 8), 200, np.uint8), "PNG"))
    assert capsys.readouterr().err == ""


# --- colour --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 1, 2])
def test_any_colour_image_makes_the_set_colour(tmp_path, capsys, place):
    contents = [save(np.full((8, 8), 7, np.uint8), "PNG"), save(np.full((8, 8), 90, np.uint8), "PNG")]
    contents.insert(place, encode(RED))
    x = packed(tmp_path, *contents)
    assert x.shape == (3, 3, 8, 8)
    assert colours_of(x)[place] == RED
    assert "2 of 3 images are grey, and are packed in colour as the others are" in capsys.readouterr().err


def test_a_set_of_grey_images_has_one_channel(tmp_path):
    assert packed(tmp_path, *(save(np.full((8, 8), v, np.uint8), "PNG") for v in (7, 90))).shape == (2, 1, 8, 8)


# --- corrupt images ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [1, 2, 12])
def test_corrupt_images_are_named_in_one_go(tmp_path, bad):
    files = TREE | {f"set/train/cat/bad{i:02d}.png": b"no image" for i in range(bad)}
    write_folder(tmp_path / "a", files)
    write_tar(tmp_path / "b.tar", files)
    for name in ("folder:a", "tar:b.tar"):
        with pytest.raises(ValueError, match="is not an image") as caught:
            load(name, 8)
        text = str(caught.value)
        assert text.count("is not an image") == min(bad, 10)
        assert text.startswith("12 images, the first 10: ") == (bad > 10)
        assert text.endswith(f"replace or remove {'it' if bad == 1 else 'them'}")
        assert "\n" not in text


def test_images_are_decoded_on_every_core(monkeypatch):
    assert packing.WORKERS >= 1
    source = Path(packing.__file__).read_text()
    assert "min(8" not in source


def test_rows_are_in_order_however_many_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "BLOCK", 3)
    names = [f"{c}/{i}.png" for i in range(5) for c in "zya"]
    content = {name: encode((10 * "ayz".index(name[0]), int(name[2]), 0)) for name in names}
    write_tar(tmp_path / "a.tar", content)
    images = load("tar:a.tar", 8)
    assert colours(images) == [(10 * c, i, 0) for c in range(3) for i in range(5)]
    assert images.y.tolist() == [c for c in range(3) for _ in range(5)]
