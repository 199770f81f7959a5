"""What Pillow alone reads wrongly, or at any cost: each is read rightly or is one sentence."""

from __future__ import annotations

import gc
import io
import struct
import weakref
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, TiffImagePlugin

from conftest import textured
from reconpatch.errors import PhotoError, SettingsError
from reconpatch.photos.images import (
    photo_size,
    read_drawing,
    read_photo,
    read_photo_bytes,
)
from reconpatch.photos.masks import read_numbers, read_white
from reconpatch.photos.picture_file import MAX_SCANS, MAX_SIDE
from reconpatch.photos.region_of_interest import RegionOfInterest
from test_images import png16, png_chunk, png_file, png_header

Array = npt.NDArray[Any]
PHOTO = textured(3, 40, 48)


def stored(image: Image.Image | Array, kind: str = "PNG", **options: Any) -> bytes:
    """An image as the bytes of a file."""
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def pixels_of(content: bytes) -> Array:
    return read_photo_bytes(content, name="a").pixels


def refused(content: bytes, said: str, **options: Any) -> None:
    with pytest.raises(PhotoError, match=said) as caught:
        read_photo_bytes(content, name="a", **options)
    assert "\n" not in str(caught.value)


# --- Several pictures in one file ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "WEBP", "MPO"])
def test_a_file_of_several_pictures_is_refused(kind: str) -> None:
    other = Image.fromarray(textured(4, 40, 48))
    options = {"lossless": True} if kind == "WEBP" else {}
    content = stored(PHOTO, kind, save_all=True, append_images=[other], **options)
    refused(content, "^a: this file holds several pictures .* save each as a file of its own")


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "WEBP"])
def test_one_picture_saved_as_all_is_one(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    content = stored(PHOTO, kind, save_all=True, **options)
    np.testing.assert_array_equal(pixels_of(content), PHOTO)


def pages(*reduced: int) -> bytes:
    """A TIFF of as many pages, each said to be of full (0) or reduced (1) resolution."""
    out = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(out, new=True) as writer:
        for said in reduced:
            info = TiffImagePlugin.ImageFileDirectory_v2()
            info[254] = said
            Image.fromarray(PHOTO if not said else PHOTO[::2, ::2]).save(
                writer, "TIFF", tiffinfo=info
            )
            writer.newFrame()
    return out.getvalue()


def test_smaller_versions_of_a_page_are_no_pictures_of_their_own() -> None:
    np.testing.assert_array_equal(pixels_of(pages(0, 1, 1)), PHOTO)
    refused(pages(0, 1, 0), "several pictures")
    refused(pages(1, 0), "several pictures")  # the first is a thumbnail of the second


def test_a_preview_behind_a_jpeg_is_no_picture_of_its_own() -> None:
    small = Image.fromarray(PHOTO[::2, ::2])
    content = stored(PHOTO, "MPO", save_all=True, append_images=[small], quality=95)
    assert np.abs(pixels_of(content).astype(int) - PHOTO).mean() < 6


def test_a_directory_that_ends_in_nowhere_costs_no_photo() -> None:
    content = bytearray(stored(PHOTO, "TIFF"))
    [at] = struct.unpack_from("<I", content, 4)
    [count] = struct.unpack_from("<H", content, at)
    struct.pack_into("<I", content, at + 2 + 12 * count, 0x7FFFFFF0)
    np.testing.assert_array_equal(pixels_of(bytes(content)), PHOTO)


# --- Polarity, depth, channels -------------------------------------------------------------------


def tiff(
    samples: Array, bits: int, order: str = "<", photometric: int | None = 0, **more: int
) -> bytes:
    """A mono TIFF of one strip; `more` are further tags by number, as in t339=2."""
    height, width = samples.shape
    data = samples.tobytes()
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1}
    tags |= {278: height, 279: len(data)} | {int(name[1:]): value for name, value in more.items()}
    entries = b"".join(
        struct.pack(order + "HHI", tag, 4 if tag in (273, 279) else 3, 1)
        + struct.pack(order + ("I" if tag in (273, 279) else "HH"), value, *(
            () if tag in (273, 279) else (0,)
        ))
        for tag, value in sorted(tags.items()) if value is not None
    )  # fmt: skip
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(data))
    return head + data + struct.pack(order + "H", len(entries) // 12) + entries + b"\0" * 4


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("bits", "white"), [(8, 255), (16, 65535)])
def test_where_white_is_0_values_are_turned_round(bits: int, white: int, order: str) -> None:
    light = np.linspace(0, white, 20 * 30).reshape(20, 30).astype(f"{order}u{bits // 8}")
    for photometric, values in ((0, white - light), (1, light)):
        content = tiff(values.astype(light.dtype), bits, order, photometric)
        np.testing.assert_array_equal(pixels_of(content), light)


def test_white_is_0_at_12_bits_with_one_bit_and_compressed() -> None:
    light = np.arange(16 * 16, dtype=np.uint16).reshape(16, 16) * 16
    dark = (4095 - light).reshape(-1, 2)  # two values in three bytes
    packed = np.stack([dark[:, 0] >> 4, (dark[:, 0] & 15) << 4 | dark[:, 1] >> 8, dark[:, 1] & 255])
    content = tiff(packed.T.astype(np.uint8).reshape(16, 24), 12, t256=16)
    np.testing.assert_array_equal(pixels_of(content), light)
    bits = PHOTO[:, :, 0] > 120
    fax = stored(Image.fromarray(bits), "TIFF", compression="group4", tiffinfo={262: 0})
    np.testing.assert_array_equal(pixels_of(fax), bits * np.uint8(255))
    grey = PHOTO[:, :, 0].astype(np.uint16) * 257
    deflated = bytearray(stored(65535 - grey, "TIFF", compression="tiff_adobe_deflate"))
    at = deflated.index(struct.pack("<HHIH", 262, 3, 1, 1))
    struct.pack_into("<H", deflated, at + 8, 0)
    np.testing.assert_array_equal(pixels_of(bytes(deflated)), grey)


def test_a_turned_tiff_in_which_white_is_0_is_both() -> None:
    light = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30) * 100
    content = tiff(np.rot90(65535 - light).copy(), 16, t274=6)
    np.testing.assert_array_equal(pixels_of(content), light)


def test_values_of_an_unknown_meaning_are_refused() -> None:
    values = np.zeros((20, 30), np.uint8)
    refused(tiff(values, 8, photometric=None), "does not say whether 0 is black or white")
    refused(tiff(values.astype(np.float32), 32, t339=3), "32 bits in which 0 is white have no")
    refused(tiff(values, 8, photometric=1, t339=2), "signed values of 8 bits")


def test_channels_beyond_colour_and_alpha_are_refused() -> None:
    height, width = 20, 30
    five = np.zeros((height, width * 5), np.uint8)
    content = tiff(five, 8, photometric=2, t256=width, t277=5)
    at = content.index(struct.pack("<HHI", 258, 3, 1))
    bits_at = len(content)
    content = content[:at] + struct.pack("<HHII", 258, 3, 5, bits_at) + content[at + 12 :]
    extra = struct.pack("<HHIHH", 338, 3, 2, 0, 0)
    [directory] = struct.unpack_from("<I", content, 4)
    [count] = struct.unpack_from("<H", content, directory)
    end = directory + 2 + 12 * count
    content = content[:end] + extra + content[end : end + 4] + content[end + 4 :]
    content = content.replace(struct.pack("<I", bits_at), struct.pack("<I", bits_at + 12))
    patched = bytearray(content + struct.pack("<5H", *[8] * 5))
    struct.pack_into("<H", patched, directory, count + 1)
    refused(bytes(patched), "5 channels a pixel, and a photo has 1 or 3")


# --- Alpha ---------------------------------------------------------------------------------------


def with_alpha(alpha: int | Array, pixels: Array = PHOTO) -> Image.Image:
    return Image.fromarray(np.dstack([pixels, np.broadcast_to(np.uint8(alpha), pixels.shape[:2])]))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "BMP"])
def test_an_alpha_of_0_everywhere_is_not_in_use(kind: str) -> None:
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    content = stored(with_alpha(0), kind, **options)
    np.testing.assert_array_equal(pixels_of(content), PHOTO)


def test_nor_is_one_of_grey_of_16_bits_or_of_a_palette() -> None:
    grey = Image.merge("LA", [Image.fromarray(PHOTO[:, :, 0]), Image.new("L", (48, 40))])
    np.testing.assert_array_equal(pixels_of(stored(grey)), PHOTO[:, :, 0])
    deep = np.dstack([PHOTO.astype(np.uint16) * 255, np.zeros((40, 48), np.uint16)])
    np.testing.assert_array_equal(pixels_of(png16(deep)), deep[:, :, :3])
    palette = Image.fromarray(PHOTO).quantize(16)
    content = stored(palette, transparency=bytes(16))
    np.testing.assert_array_equal(pixels_of(content), np.asarray(palette.convert("RGB")))
    np.testing.assert_array_equal(read_photo(with_alpha(0)).pixels, PHOTO)


def test_alpha_in_use_is_composited_and_nothing_at_all_is_refused() -> None:
    alpha = np.zeros((40, 48), np.uint8)
    alpha[5, 7] = 255
    found = pixels_of(stored(with_alpha(alpha)))
    assert found[5, 7].tolist() == PHOTO[5, 7].tolist()
    assert found.sum() == PHOTO[5, 7].astype(int).sum()
    refused(stored(with_alpha(0, np.zeros_like(PHOTO))), "transparent everywhere and black below")


def test_the_transparent_value_of_16_bits_turns_black() -> None:
    grey = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30, 1) + 500
    content = png16(grey, 0, png_chunk(b"tRNS", struct.pack(">H", 510)))
    np.testing.assert_array_equal(pixels_of(content), np.where(grey == 510, 0, grey)[:, :, 0])
    rgb = np.dstack([grey, grey, grey + 1])
    content = png16(rgb, 0, png_chunk(b"tRNS", struct.pack(">3H", 510, 510, 511)))
    np.testing.assert_array_equal(pixels_of(content), np.where(grey == 510, 0, rgb))


# --- Drawings ------------------------------------------------------------------------------------


def test_a_white_shape_on_nothing_is_the_shape(tmp_path: Path) -> None:
    shape = np.zeros((40, 48), np.uint8)
    shape[10:30, 5:25] = 255
    white = np.full((40, 48, 3), 255, np.uint8)
    with_alpha(shape, white).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_white(tmp_path / "a.png"), shape > 0)
    region = RegionOfInterest.read(tmp_path / "a.png")
    np.testing.assert_array_equal(region.at(40, 48), shape > 0)
    with_alpha(0, white).save(tmp_path / "b.png")
    assert not read_white(tmp_path / "b.png").any()  # nothing was drawn
    with pytest.raises(SettingsError, match="no pixel to inspect"):
        RegionOfInterest.read(tmp_path / "b.png")


@pytest.mark.parametrize("case", ["turned", "16 bits", "white is 0", "red"])
def test_a_region_is_read_as_photos_and_masks_are(case: str, tmp_path: Path) -> None:
    shape = np.zeros((40, 48), np.uint8)
    shape[10:30, 5:25] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    content = {
        "turned": lambda: stored(np.rot90(shape).copy(), exif=exif),
        "16 bits": lambda: stored(shape.astype(np.uint16) * 257),
        "white is 0": lambda: tiff(65535 - shape.astype("<u2") * 257, 16),
        "red": lambda: stored(np.dstack([shape, shape * 0, shape * 0])),
    }[case]()
    (tmp_path / "a.png").write_bytes(content)
    region = RegionOfInterest.read(tmp_path / "a.png")
    np.testing.assert_array_equal(region.at(40, 48), shape > 0)


def test_a_region_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    drawn = np.zeros((40, 48), np.uint8)
    drawn[:, 10:] = 1  # the numbers of a labelling program
    Image.fromarray(drawn).save(tmp_path / "a.png")
    with pytest.raises(SettingsError, match=r"cannot be read .*holds values up to 1 of 255"):
        RegionOfInterest.read(tmp_path / "a.png")
    other = [Image.fromarray(drawn)]
    Image.fromarray(drawn).save(tmp_path / "b.tif", save_all=True, append_images=other)
    with pytest.raises(SettingsError, match="several pictures"):
        RegionOfInterest.read(tmp_path / "b.tif")


def test_numbers_of_a_palette_are_its_indices_upright(tmp_path: Path) -> None:
    numbers = np.arange(40 * 48).reshape(40, 48).astype(np.uint8) % 7
    image = Image.fromarray(np.rot90(numbers).copy())
    image.putpalette([9 * i for i in range(21)])
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_numbers(tmp_path / "a.png"), numbers)
    assert read_drawing(tmp_path / "a.png").pixels.ndim == 3


# --- Metadata ------------------------------------------------------------------------------------


def png(*chunks: bytes, behind: bytes = b"") -> bytes:
    rows = np.insert(PHOTO.reshape(40, -1), 0, 0, axis=1).tobytes()
    data = png_chunk(b"IDAT", zlib.compress(rows))
    return png_file(png_header(48, 40), *chunks, data, behind, png_chunk(b"IEND", b""))


LARGE = bytes(2_000_000)
METADATA = {
    "iCCP": png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(LARGE)),
    "zTXt": png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(LARGE)),
    "tEXt": png_chunk(b"tEXt", b"Comment\0" + bytes(2_000_000)),
    "XMP": png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(LARGE)),
    "profile": png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(LARGE)),
    "many": png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(LARGE[:900_000])) * 80,
    "damaged": png_chunk(b"iCCP", b"icc\0\7none") + png_chunk(b"cHRM", b"x"),
    "checksum": png_chunk(b"pHYs", b"123456789")[:-1] + b"?",
}


@pytest.mark.parametrize("name", METADATA)
def test_no_metadata_keeps_a_png_from_its_pixels(name: str, tmp_path: Path) -> None:
    for content in (png(METADATA[name]), png(behind=METADATA[name])):
        np.testing.assert_array_equal(pixels_of(content), PHOTO)
    (tmp_path / "a.png").write_bytes(png(METADATA[name]))
    assert photo_size(tmp_path / "a.png") == (40, 48)


@pytest.mark.parametrize("packed", [False, True])
def test_orientation_in_a_text_of_a_png_still_counts(packed: bool) -> None:
    text = b'<x:xmpmeta><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    body = zlib.compress(text) if packed else text
    chunk = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0" + bytes([packed, 0, 0, 0]) + body)
    np.testing.assert_array_equal(pixels_of(png(chunk)), PHOTO[::-1, ::-1])


# --- Bounds --------------------------------------------------------------------------------------


def progressive(more: int, **options: Any) -> bytes:
    """A progressive JPEG whose last table and scan are there `more` times again."""
    content = stored(PHOTO, "JPEG", progressive=True, quality=90, **options)
    scan = content[content.rindex(b"\xff\xc4", 0, content.rindex(b"\xff\xda")) : -2]
    return content[:-2] + more * scan + content[-2:]


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    assert pixels_of(progressive(0)).shape == PHOTO.shape
    assert pixels_of(progressive(MAX_SCANS - 10)).shape == PHOTO.shape  # 10 are its own
    refused(progressive(MAX_SCANS - 9), f"JPEG of more than {MAX_SCANS} scans")


def test_scans_of_thumbnails_and_in_metadata_do_not_count() -> None:
    exif = Image.Exif()
    exif[0x010E] = "\xff\xda" * 100
    icc = b"\xff\xda\0\x02" * 100
    content = progressive(0, icc_profile=icc, exif=exif, comment=b"\xff\xda" * 100)
    assert pixels_of(content).shape == PHOTO.shape
    assert pixels_of(content + 100 * b"\xff\xda\0\2").shape == PHOTO.shape  # behind its end


def test_a_side_is_bounded_before_it_is_decoded() -> None:
    content = png_file(png_header(MIN, MAX_SIDE + 1), png_chunk(b"IDAT", b""))
    refused(content, rf"a: 16 x {MAX_SIDE + 1} pixels, and a side may have 65,535 at most")
    refused(png_file(png_header(5_000_000, MIN), png_chunk(b"IDAT", b"")), "may have 65,535")
    assert read_photo(np.zeros((MIN, MAX_SIDE), np.uint8)).width == MAX_SIDE
    with pytest.raises(PhotoError, match="may have 65,535 at most"):
        read_photo(np.zeros((MIN, MAX_SIDE + 1), np.uint8))


MIN = 16


def test_a_chunk_that_says_it_is_huge_takes_no_memory() -> None:
    content = png_file(png_header(48, 40)) + struct.pack(">I", 2**31 - 1) + b"IDAT" + b"x" * 20
    refused(content, "cannot be decoded")


# --- Errors --------------------------------------------------------------------------------------


def test_an_error_that_is_kept_keeps_no_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the collector: nothing but the error itself may hold on to what was decoded."""
    images: list[weakref.ref[Any]] = []
    opened = Image.open

    def watched(*args: Any, **options: Any) -> Image.Image:
        image = opened(*args, **options)
        images.append(weakref.ref(image))
        return image

    monkeypatch.setattr(Image, "open", watched)
    kept = []
    gc.collect()
    gc.disable()
    try:
        for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP"):
            content = stored(textured(0, 200, 200), kind)
            for part in (content[: len(content) * 4 // 5], stored(with_alpha(0, 0 * PHOTO))):
                try:
                    read_photo_bytes(part, name="a")
                except PhotoError as error:
                    kept.append(error)
        alive = [image for image in images if image() is not None]
    finally:
        gc.enable()
    assert len(kept) == 10
    assert len(images) > 10
    assert alive == []
