"""The texts and the picture of the tour."""

import struct
import zlib

_HARBOURS = (
    "Kiel Emden Husum Rostock Stralsund Wismar Flensburg Cuxhaven Bremerhaven Norddeich Sassnitz Travemünde Büsum Dagebüll"
    " Heiligenhafen Eckernförde Warnemünde Borkum Juist Norderney Langeoog Spiekeroog Wangerooge Helgoland Amrum"
)
_SENTENCES = (
    "High water in {} comes about twelve hours after the one before.",
    "The harbour master of {} answers on channel twelve.",
    "A storm from the north-west closes the lock of {}.",
    "The ferry leaves {} at seven in the morning.",
    "Fishing boats in {} land plaice and shrimp.",
    "The lighthouse of {} can be seen for twenty miles.",
    "Yachts find berths for guests in the north of {}.",
    "Fog often hides the fairway to {} in October.",
    "A crane in {} lifts ships of up to forty tonnes.",
    "The sailing school of {} teaches children in summer.",
    "Ice blocked the harbour of {} in the winter of 1979.",
    "The fish market of {} opens on Sundays before dawn.",
    "A museum in {} shows old charts and compasses.",
    "Seals rest on the sandbanks off {}.",
    "The pilot station of {} is manned day and night.",
    "Fuel for ships is sold at the eastern quay of {}.",
    "Trains to the city leave the station of {} every hour.",
    "The rescue cruiser of {} sails in any weather.",
    "Dredgers keep the channel of {} nine metres deep.",
    "The regatta of {} ends with fireworks.",
)
KNOWN = tuple(sentence.format(harbour) for harbour in _HARBOURS.split() for sentence in _SENTENCES)
NEW = tuple(sentence.format("Oslo") for sentence in _SENTENCES)
QUESTION = "Where can I see seals resting on sandbanks?"


def picture() -> bytes:
    """Return a PNG of a lighthouse by the sea, 160 by 120 pixels."""
    rows = b"".join(b"\x00" + b"".join(_pixel(x, y) for x in range(160)) for y in range(120))
    header = struct.pack(">IIBBBBB", 160, 120, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _pixel(x: int, y: int) -> bytes:
    if 100 < x < 116 and 34 < y < 88:
        return b"\xd8\x28\x28" if (y // 9) % 2 else b"\xf5\xf5\xf5"
    if 98 < x < 118 and 24 < y <= 34:
        return b"\xf0\xdc\x3c"
    if y > 84:
        return b"\x14\x3c\xa0"
    return b"\x50\x78\xdc"


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
