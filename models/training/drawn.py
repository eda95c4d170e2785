"""Drawn plates of many countries, and drawn signs that are none.

The plates need not be readable, nor right to the letter: what they teach is that a plate is a small bright
or coloured board with a few even, evenly spaced marks on it, whatever the script. Signs (shop names, street
names, round signs, clocks, print) are what a network takes for plates and faces.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from .pack import Image

Mask = NDArray[np.uint8]  # (h, w) 0..255
Colour = tuple[int, int, int]  # BGR

HEIGHT = 64  # px of a drawn plate
_CELL = 48  # px, height of a glyph
WHITE, YELLOW, BLACK, BLUE = (235, 238, 238), (40, 195, 240), (25, 22, 22), (165, 70, 15)
RED, GREEN, CREAM, GREY = (40, 30, 175), (70, 105, 25), (200, 230, 240), (190, 188, 185)
SKY, ORANGE, MINT, EURO = (235, 205, 160), (40, 130, 235), (150, 205, 140), (150, 60, 10)
_SCRIPTS = {"A": 28, "T": 40, "H": 60}  # placeholders of drawn scripts and how many glyphs each has
_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX)


@dataclass(frozen=True)
class Row:
    """A line of marks between two heights (parts of the plate's).

    In a pattern `L` is a letter, `0` a digit, `A T H` a glyph of the Arabic, Thai, Han look; `|` is a rule.
    """

    patterns: tuple[str, ...]
    top: float = 0.13
    bottom: float = 0.87
    left: float = 0.05
    right: float = 0.95


@dataclass(frozen=True)
class Style:
    """One country's look."""

    share: float
    aspect: tuple[float, float]
    looks: tuple[tuple[Colour, Colour], ...]  # ground and ink
    rows: tuple[Row, ...]
    band: str = ""  # left, right, both, top
    band_colour: Colour = EURO


_EU = ("LL 000 LL", "LLL 0000", "L LL 0000", "LL LL 000", "0LL 0000", "00 LL 00", "LL 00000", "LLL 00L")
_US = ("LLL 0000", "0LLL000", "LLL 000", "000 LLL", "LL 00000", "L00 LLL")
_US_LOOKS = ((WHITE, BLUE), (WHITE, RED), (CREAM, BLUE), (SKY, BLACK), (YELLOW, BLUE), (MINT, GREEN))
_US_LOOKS += ((GREEN, WHITE), (ORANGE, BLACK), (WHITE, GREEN), (GREY, BLUE), (BLUE, YELLOW))
_MIDDLE = Row(_US, 0.24, 0.78)
_INDIA = ("LL 00 LL 0000", "LL00LL0000", "LL 00 L 0000")
STYLES = {
    "eu": Style(4, (4.2, 4.9), ((WHITE, BLACK), (WHITE, BLACK), (YELLOW, BLACK), (WHITE, RED)),
                (Row(_EU, left=0.14),), "left"),
    "eu both bands": Style(1, (4.2, 4.9), ((WHITE, BLACK),),
                           (Row(("LL-000-LL", "LL 000LL"), left=0.14, right=0.86),), "both"),
    "eu two rows": Style(1.5, (1.25, 2.0), ((WHITE, BLACK), (YELLOW, BLACK)),
                         (Row(("LL", "LLL", "L 00", "LL 0"), 0.08, 0.48, 0.4),
                          Row(("0000", "LL 000", "000 L", "00 LL"), 0.53, 0.93, 0.36)), "left"),
    "uk": Style(1.5, (4.4, 4.8), ((YELLOW, BLACK), (WHITE, BLACK)), (Row(("LL00 LLL", "L000 LLL")),)),
    "uk two rows": Style(0.5, (1.3, 1.6), ((YELLOW, BLACK), (WHITE, BLACK)),
                         (Row(("LL00",), 0.07, 0.47), Row(("LLL",), 0.53, 0.93))),
    "russia": Style(1, (4.4, 4.8), ((WHITE, BLACK),),
                    (Row(("L 000 LL",), right=0.72), Row(("00", "000"), 0.1, 0.6, 0.78),
                     Row(("LLL",), 0.68, 0.9, 0.78))),
    "america": Style(3, (1.9, 2.1), _US_LOOKS,
                     (_MIDDLE, Row(("LLLLLLLL", "LLLLLL", "LLLLL LL"), 0.05, 0.19, 0.25, 0.75),
                      Row(("LLLLLL LLLL", "LLL 00"), 0.83, 0.95, 0.2, 0.8))),
    "america plain": Style(1, (1.9, 2.9), _US_LOOKS, (_MIDDLE,)),
    "brazil": Style(1, (3.0, 3.3), ((WHITE, BLACK), (WHITE, RED)),
                    (Row(("LLL0L00", "LL 000 LL"), 0.33, 0.93),), "top", (165, 60, 0)),
    "brazil grey": Style(0.5, (3.0, 3.3), ((GREY, BLACK), (RED, WHITE)),
                         (Row(("LLL-0000",), 0.3, 0.93), Row(("LL LLLLLLLL",), 0.07, 0.22, 0.3, 0.7))),
    "china": Style(2, (3.0, 3.3), (((160, 70, 20), WHITE), (YELLOW, BLACK), ((150, 60, 15), WHITE)),
                   (Row(("HL.00000", "HL.L0000", "HL.0L000")),)),
    "china green": Style(1, (3.3, 3.5), (((150, 215, 120), BLACK), ((190, 225, 160), BLACK)),
                         (Row(("HL.L00000", "HL.00000L")),)),
    "china two rows": Style(0.4, (1.5, 2.0), ((YELLOW, BLACK),),
                            (Row(("HL",), 0.06, 0.38, 0.25, 0.75), Row(("00000", "L0000"), 0.44, 0.94))),
    "japan": Style(1, (1.9, 2.1), ((WHITE, GREEN), (YELLOW, BLACK), (GREEN, WHITE)),
                   (Row(("HH 000", "HHH 00"), 0.07, 0.32, 0.25, 0.75), Row(("H 00-00",), 0.4, 0.92))),
    "korea": Style(0.7, (4.2, 4.8), ((WHITE, BLACK), (SKY, BLACK)), (Row(("00H 0000", "000H 0000")),)),
    "egypt": Style(1.2, (1.9, 2.2), ((WHITE, BLACK),), (Row(("AAA|000", "AAA|0000", "AA|0000"), 0.4, 0.93),),
                   "top", SKY),
    "gulf": Style(1, (4.2, 4.8), ((WHITE, BLACK),), (Row(("L AAAA 00000", "AA 00000", "00 AAA 0000")),)),
    "saudi": Style(0.8, (1.9, 2.2), ((WHITE, BLACK),),
                   (Row(("AAAA|AAA",), 0.07, 0.47, 0.04, 0.86), Row(("0000|LLL",), 0.53, 0.93, 0.04, 0.86)),
                   "right", WHITE),
    "iran": Style(0.8, (4.4, 4.8), ((WHITE, BLACK), (YELLOW, BLACK)),
                  (Row(("AA A AAA|AA", "00 A 000|00"), left=0.13),), "left"),
    "maghreb": Style(0.5, (4.4, 4.8), ((WHITE, BLACK), (BLACK, WHITE)), (Row(("00000|A|00", "000 AAAA 0000")),)),
    "thailand": Style(1, (2.0, 2.3), ((WHITE, BLACK), (YELLOW, BLACK)),
                      (Row(("0TT 0000", "TT 000", "TT 0000"), 0.08, 0.62),
                       Row(("TTTTTTT", "TTTTTTTTT"), 0.68, 0.93, 0.2, 0.8))),
    "india": Style(1.5, (4.0, 4.8), ((WHITE, BLACK), (WHITE, BLACK), (YELLOW, BLACK), (GREEN, WHITE)),
                   (Row(_INDIA),)),
    "india two rows": Style(1.2, (1.5, 2.0), ((WHITE, BLACK), (YELLOW, BLACK)),
                            (Row(("LL 00 LL", "LL00L"), 0.08, 0.47), Row(("0000",), 0.53, 0.93))),
    "israel": Style(0.6, (4.4, 4.8), ((YELLOW, BLACK),), (Row(("00-000-00", "000-00-000"), left=0.13),), "left"),
    "indonesia": Style(0.7, (2.9, 3.3), ((BLACK, WHITE), (WHITE, BLACK)),
                       (Row(("L 0000 LL", "LL 0000 L"), 0.1, 0.68), Row(("00 00",), 0.75, 0.93, 0.35, 0.65))),
    "motorcycle": Style(1.2, (1.1, 1.6), ((WHITE, BLACK), (YELLOW, BLACK), (GREEN, WHITE), (WHITE, RED)),
                        (Row(("LL 00", "LLL", "00 L", "L0"), 0.08, 0.46), Row(("0000", "00000", "000"), 0.54, 0.92))),
}  # fmt: skip
_NAMES = tuple(STYLES)
_SHARES = np.array([style.share for style in STYLES.values()])


def draw_plate(rng: Generator, aspect: float | None = None) -> Image:
    """A plate of a random country, `HEIGHT` px high; near `aspect` (width through height) if given."""
    shares = _SHARES
    if aspect is not None:
        fits = [s.aspect[0] * 0.85 < aspect < s.aspect[1] * 1.15 for s in STYLES.values()]
        shares = _SHARES * fits if any(fits) else _SHARES
    style = STYLES[_NAMES[rng.choice(len(_NAMES), p=shares / shares.sum())]]
    width = round(HEIGHT * rng.uniform(*style.aspect))
    ground, ink = style.looks[rng.integers(len(style.looks))]
    plate = np.empty((HEIGHT, width, 3), np.uint8)
    plate[:] = _near(rng, ground)
    if style.band:
        _draw_band(rng, plate, style)
    ink = _near(rng, ink)
    face = int(rng.integers(len(_FONTS))), int(rng.integers(3, 8))
    for row in style.rows:
        _draw_row(rng, plate, row, ink, face)
    if rng.random() < 0.6:
        edge = ink if rng.random() < 0.7 else _near(rng, GREY)
        inset = int(rng.integers(0, 3))
        corners = (inset, inset), (width - 1 - inset, HEIGHT - 1 - inset)
        cv2.rectangle(plate, *corners, edge, int(rng.integers(1, 4)))
    return _worn(rng, plate)


def _near(rng: Generator, colour: Colour) -> Colour:
    blue, green, red = (np.array(colour) + rng.normal(0, 9, 3) + rng.normal(0, 9)).clip(0, 255).astype(int)
    return int(blue), int(green), int(red)


def _draw_band(rng: Generator, plate: Image, style: Style) -> None:
    height, width = plate.shape[:2]
    colour = _near(rng, style.band_colour)
    thick = round(height * rng.uniform(0.38, 0.52))
    if style.band == "top":
        plate[: round(height * rng.uniform(0.22, 0.33))] = colour
        _draw_row(rng, plate, Row(("LLLLLL", "LLLLL  AAAA"), 0.05, 0.2, 0.3, 0.7), WHITE, (0, 5))
        return
    if style.band in ("right", "both"):
        plate[:, -(thick * 2 // 3) :] = colour
    if style.band == "right":
        return
    plate[:, :thick] = colour
    cv2.circle(plate, (thick // 2, height // 3), thick // 4, (60, 210, 235), 1 + thick // 16, cv2.LINE_AA)
    letters = Row(("L", "LL"), 0.62, 0.88, 0.2 * thick / width, 0.8 * thick / width)
    _draw_row(rng, plate, letters, WHITE, (0, 5))


def _draw_row(rng: Generator, plate: Image, row: Row, ink: Colour, face: tuple[int, int]) -> None:
    height, width = plate.shape[:2]
    top, bottom = round(row.top * height), round(row.bottom * height)
    left, right = round(row.left * width), round(row.right * width)
    marks = _marks(rng, row.patterns[rng.integers(len(row.patterns))], face)
    wide = min(right - left, round(marks.shape[1] * (bottom - top) / _CELL * rng.uniform(0.75, 1.25)))
    if wide < 2 or bottom - top < 2:
        return
    marks = cv2.resize(marks, (wide, bottom - top), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    left += (right - left - wide) // 2
    _ink(plate[top:bottom, left : left + wide], marks, ink)


def _ink(area: Image, marks: Mask, ink: Colour) -> None:
    """Colour `area` with `ink` where `marks` is set."""
    part = marks[..., None].astype(np.float32) / 255
    area[:] = area + part * (np.array(ink, np.float32) - area) + 0.5


def _marks(rng: Generator, pattern: str, face: tuple[int, int]) -> Mask:
    """The pattern's glyphs side by side, `_CELL` px high."""
    gap = np.zeros((_CELL, int(rng.integers(5, 11))), np.uint8)
    cells = []
    for sign in pattern:
        if sign == "L":
            sign = chr(int(rng.integers(ord("A"), ord("Z") + 1)))
        elif sign == "0":
            sign = chr(int(rng.integers(ord("0"), ord("9") + 1)))
        elif sign in _SCRIPTS:
            cells += [_strange(sign, int(rng.integers(_SCRIPTS[sign]))), gap]
            continue
        cells += [_glyph(sign, *face), gap]
    return np.concatenate(cells, 1)


@cache
def _glyph(sign: str, font: int, thickness: int) -> Mask:
    if sign == " ":
        return np.zeros((_CELL, 12), np.uint8)
    if sign == "|":
        return np.pad(np.full((_CELL, 2), 200, np.uint8), ((0, 0), (4, 4)))
    canvas = np.zeros((3 * _CELL, 3 * _CELL), np.uint8)
    cv2.putText(canvas, sign, (_CELL, 2 * _CELL), _FONTS[font], 1.8, (255,), thickness, cv2.LINE_AA)
    if sign in ".-":
        return np.ascontiguousarray(canvas[2 * _CELL - 44 : 2 * _CELL + 4, _CELL : _CELL + 22])
    rows, columns = canvas.any(1).nonzero()[0], canvas.any(0).nonzero()[0]
    tight = canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    if sign.islower():
        tight = canvas[2 * _CELL - 42 : 2 * _CELL + 16, columns[0] : columns[-1] + 1]
    wide = max(8, round(tight.shape[1] * _CELL / tight.shape[0]))
    return cv2.resize(tight, (wide, _CELL), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


@cache
def _strange(script: str, number: int) -> Mask:
    """Glyph `number` of an invented alphabet that has the look of a script."""
    rng = np.random.default_rng([ord(script), number])
    mask = np.zeros((_CELL, 40 if script == "H" else 32), np.uint8)
    {"A": _arabic_look, "T": _thai_look, "H": _han_look}[script](rng, mask)
    return mask


def _arabic_look(rng: Generator, mask: Mask) -> None:
    height, width = mask.shape
    x, y = width // 2, int(rng.integers(22, 30))
    span = int(rng.integers(7, 14)), int(rng.integers(6, 15))
    start = int(rng.integers(0, 60))
    cv2.ellipse(mask, (x, y), span, 0, start, start + int(rng.integers(140, 260)), (255,), 4, cv2.LINE_AA)
    if rng.random() < 0.4:
        cv2.line(mask, (int(rng.integers(6, width - 6)), 4), (x, y), (255,), 4, cv2.LINE_AA)
    above = rng.random() < 0.6
    for dot in range(int(rng.integers(0, 4))):
        at = (width // 2 - 6 + 6 * dot, int(rng.integers(5, 12)) if above else height - 6)
        cv2.circle(mask, at, 2, (255,), -1, cv2.LINE_AA)


def _thai_look(rng: Generator, mask: Mask) -> None:
    height, width = mask.shape
    left, right, top, low = 5, width - 6, 14, height - 4
    loop = (left + 4 if rng.random() < 0.7 else right - 4), int(rng.choice([top + 4, low - 6, 24]))
    cv2.circle(mask, loop, 4, (255,), 3, cv2.LINE_AA)
    corners = [(left, low), (left, top), ((left + right) // 2, top - 3), (right, top), (right, low)]
    if rng.random() < 0.4:
        corners[2] = ((left + right) // 2, low)
    keep = corners[: int(rng.integers(3, 6))]
    cv2.polylines(mask, [np.array(keep, np.int32)], False, (255,), 3, cv2.LINE_AA)
    if rng.random() < 0.3:
        cv2.ellipse(mask, ((left + right) // 2, 5), (9, 3), 0, 180, 360, (255,), 2, cv2.LINE_AA)


def _han_look(rng: Generator, mask: Mask) -> None:
    height, width = mask.shape
    for _ in range(int(rng.integers(2, 5))):
        y, x0 = int(rng.integers(5, height - 5)), int(rng.integers(2, width // 2))
        cv2.line(mask, (x0, y), (int(rng.integers(width // 2, width - 2)), y), (255,), 4)
    for _ in range(int(rng.integers(1, 4))):
        x, y0 = int(rng.integers(5, width - 5)), int(rng.integers(2, height // 2))
        cv2.line(mask, (x, y0), (x, int(rng.integers(height // 2, height - 2))), (255,), 4)
    for sign in rng.choice([-1, 1], int(rng.integers(0, 3))):
        cv2.line(
            mask, (width // 2, height // 2), (width // 2 + int(sign) * 16, height - 4), (255,), 4, cv2.LINE_AA
        )


def _worn(rng: Generator, plate: Image) -> Image:
    """Screws, dirt, shadows and fading."""
    height, width = plate.shape[:2]
    if rng.random() < 0.3:
        y = int(height * rng.choice([0.12, 0.5, 0.88]))
        for x in (0.12, 0.88):
            cv2.circle(plate, (int(x * width), y), 2, (70, 70, 70), -1, cv2.LINE_AA)
    gain = np.full((4, 6), rng.uniform(0.75, 1.0), np.float32)
    if rng.random() < 0.4:
        gain *= np.linspace(rng.uniform(0.5, 1.0), rng.uniform(0.8, 1.1), 6, dtype=np.float32)
    if rng.random() < 0.3:
        gain *= np.linspace(rng.uniform(0.5, 1.0), rng.uniform(0.8, 1.1), 4, dtype=np.float32)[:, None]
    if rng.random() < 0.3:
        gain *= rng.uniform(0.6, 1.0, gain.shape).astype(np.float32)
    smooth = cv2.resize(gain, (width, height), interpolation=cv2.INTER_LINEAR)
    veil = rng.uniform(0, 60) if rng.random() < 0.3 else 0.0
    return (plate * smooth[..., None] + veil).clip(0, 255).astype(np.uint8)


def draw_sign(rng: Generator) -> tuple[Image, Mask]:
    """Something with print or marks on it that is neither plate nor face, and where it is opaque."""
    kinds: tuple[Callable[[Generator], tuple[Image, Mask]], ...] = (
        _board,
        _board,
        _page,
        _disc,
        _clock,
        _bars,
    )
    return kinds[rng.integers(len(kinds))](rng)


def _sheet(rng: Generator, height: int, width: int) -> tuple[Image, Colour, Mask]:
    looks = ((WHITE, BLACK), (BLUE, WHITE), (GREEN, WHITE), (RED, WHITE), (CREAM, BLACK), (BLACK, CREAM))
    ground, ink = looks[rng.integers(len(looks))]
    sheet = np.empty((height, width, 3), np.uint8)
    sheet[:] = _near(rng, ground)
    return sheet, _near(rng, ink), np.full((height, width), 255, np.uint8)


def _word(rng: Generator) -> str:
    length = int(rng.integers(4, 10))
    pairs = zip(rng.choice(list("bcdfgmnprsv"), length), rng.choice(list("aeiou"), length), strict=True)
    word = "".join(str(letter) for pair in pairs for letter in pair)[:length]
    return word.capitalize() if rng.random() < 0.6 else word


def _board(rng: Generator) -> tuple[Image, Mask]:
    """A shop's or a street's name, in words."""
    words = [_word(rng) for _ in range(int(rng.integers(1, 4)))]
    sheet, ink, mask = _sheet(rng, HEIGHT, int(HEIGHT * 0.45 * sum(len(word) for word in words)) + 20)
    _draw_row(rng, sheet, Row((" ".join(words),)), ink, (int(rng.integers(3)), int(rng.integers(3, 8))))
    return sheet, mask


def _page(rng: Generator) -> tuple[Image, Mask]:
    """Several lines of print."""
    lines = int(rng.integers(3, 7))
    sheet, ink, mask = _sheet(rng, 24 * lines, int(rng.integers(90, 220)))
    for line in range(lines):
        row = Row((f"{_word(rng)} {_word(rng)}",), (line + 0.15) / lines, (line + 0.85) / lines)
        _draw_row(rng, sheet, row, ink, (0, 4))
    return sheet, mask


def _round(rng: Generator) -> tuple[Image, Colour, Mask]:
    sheet, ink, mask = _sheet(rng, 96, 96)
    mask[:] = 0
    cv2.circle(mask, (48, 48), 46, (255,), -1, cv2.LINE_AA)
    cv2.circle(sheet, (48, 48), 42, ink, int(rng.integers(3, 10)), cv2.LINE_AA)
    return sheet, ink, mask


def _disc(rng: Generator) -> tuple[Image, Mask]:
    """A round road sign with a number or an arrow."""
    sheet, ink, mask = _round(rng)
    if rng.random() < 0.5:
        _draw_row(rng, sheet, Row(("00", "0", "000"), 0.3, 0.7, 0.2, 0.8), ink, (1, 6))
    else:
        cv2.arrowedLine(
            sheet, (48, 76), (48 + int(rng.integers(-24, 25)), 22), ink, 8, cv2.LINE_AA, tipLength=0.4
        )
    return sheet, mask


def _clock(rng: Generator) -> tuple[Image, Mask]:
    sheet, ink, mask = _round(rng)
    for hour in np.arange(12) * np.pi / 6:
        way = np.array([np.cos(hour), np.sin(hour)])
        ends = (48 + np.outer((32, 38), way)).astype(int)
        cv2.line(sheet, ends[0].tolist(), ends[1].tolist(), ink, 2, cv2.LINE_AA)
    for length in (20, 32):
        turn = rng.uniform(0, 2 * np.pi)
        tip = int(48 + length * np.cos(turn)), int(48 + length * np.sin(turn))
        cv2.line(sheet, (48, 48), tip, ink, 3, cv2.LINE_AA)
    return sheet, mask


def _bars(rng: Generator) -> tuple[Image, Mask]:
    """Bars as of grilles, vents and barcodes."""
    sheet, ink, mask = _sheet(rng, HEIGHT, int(rng.integers(70, 240)))
    step, thick = int(rng.integers(6, 16)), int(rng.integers(2, 5))
    if rng.random() < 0.5:
        for x in range(step, sheet.shape[1] - step, step):
            cv2.line(sheet, (x, 6), (x, HEIGHT - 7), ink, thick)
    else:
        for y in range(step, HEIGHT - 4, step):
            cv2.line(sheet, (6, y), (sheet.shape[1] - 7, y), ink, thick)
    return sheet, mask
