"""Fonts that are there on any machine, and texts for them."""

import functools
import importlib.util
from pathlib import Path

from numpy.random import Generator
from PIL import ImageFont
from PIL.ImageFont import FreeTypeFont

_BUNDLED = ""
"""The font that comes with Pillow, which has the letters of ASCII."""
_ASCII = ("en", "nl")
_EUROPEAN = (*_ASCII, "de", "fr", "es", "it", "pt", "sv", "pl", "cs", "tr", "hu", "ru", "uk", "el", "ru", "el")
_FIXED = (*_EUROPEAN, "hy", "ka")
_MANY = (*_FIXED, "vi")
_FILES = {
    "DejaVuSans": (*_MANY, "he"), "DejaVuSans-Bold": (*_MANY, "he"), "DejaVuSans-Oblique": _MANY,
    "DejaVuSansMono": _FIXED, "DejaVuSansMono-Bold": _FIXED, "DejaVuSerif": _MANY, "DejaVuSerif-Bold": _MANY,
    "DejaVuSerif-Italic": _MANY, "STIXGeneral": _EUROPEAN, "STIXGeneralBol": _EUROPEAN,
    "STIXGeneralItalic": _EUROPEAN,
}  # fmt: skip
"""Those that come with matplotlib, and the languages that each has the letters of."""

ARTICLE = {
    "en": "All human beings are born free and equal in dignity and rights. They are endowed with reason and "
    "conscience and should act towards one another in a spirit of brotherhood.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt "
    "und sollen einander im Geist der Brüderlichkeit begegnen.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de "
    "conscience et doivent agir les uns envers les autres dans un esprit de fraternité.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y "
    "conciencia, deben comportarse fraternalmente los unos con los otros.",
    "it": "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. Essi sono dotati di ragione e di "
    "coscienza e devono agire gli uni verso gli altri in spirito di fratellanza.",
    "pt": "Todos os seres humanos nascem livres e iguais em dignidade e em direitos. Dotados de razão e de "
    "consciência, devem agir uns para com os outros em espírito de fraternidade.",
    "nl": "Alle mensen worden vrij en gelijk in waardigheid en rechten geboren. Zij zijn begiftigd met verstand en "
    "geweten, en behoren zich jegens elkander in een geest van broederschap te gedragen.",
    "sv": "Alla människor är födda fria och lika i värde och rättigheter. De är utrustade med förnuft och samvete och "
    "bör handla gentemot varandra i en anda av broderskap.",
    "pl": "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. Są oni obdarzeni rozumem i "
    "sumieniem i powinni postępować wobec innych w duchu braterstwa.",
    "cs": "Všichni lidé rodí se svobodní a sobě rovní co do důstojnosti a práv. Jsou nadáni rozumem a svědomím a mají "
    "spolu jednat v duchu bratrství.",
    "tr": "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana sahiptirler ve "
    "birbirlerine karşı kardeşlik zihniyeti ile hareket etmelidirler.",
    "hu": "Minden emberi lény szabadon születik és egyenlő méltósága és joga van. Az emberek ésszel és lelkiismerettel "
    "bírván, egymással szemben testvéri szellemben kell hogy viseltessenek.",
    "ru": "Все люди рождаются свободными и равными в своём достоинстве и правах. Они наделены разумом и совестью и "
    "должны поступать в отношении друг друга в духе братства.",
    "uk": "Всі люди народжуються вільними і рівними у своїй гідності та правах. Вони наділені розумом і совістю і "
    "повинні діяти у відношенні один до одного в дусі братерства.",
    "el": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα. Είναι προικισμένοι με "
    "λογική και συνείδηση, και οφείλουν να συμπεριφέρονται μεταξύ τους με πνεύμα αδελφοσύνης.",
    "vi": "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền. Mọi con người đều được tạo hóa "
    "ban cho lý trí và lương tâm và cần phải đối xử với nhau trong tình bằng hữu.",
    "hy": "Բոլոր մարդիկ ծնվում են ազատ ու հավասար իրենց արժանապատվությամբ ու իրավունքներով։ Նրանք ունեն բանականություն "
    "ու խիղճ և միմյանց պետք է եղբայրաբար վերաբերվեն։",
    "ka": "ყველა ადამიანი იბადება თავისუფალი და თანასწორი თავისი ღირსებითა და უფლებებით. მათ მინიჭებული აქვთ გონება "
    "და სინდისი და ერთმანეთის მიმართ უნდა იქცეოდნენ ძმობის სულისკვეთებით.",
    "he": ".הווחא לש חורב והערב םדא לכל גוהנל םהילע ןכיפל ,ןופצמבו הנובתב וננוח םלוכ .םהיתויוכזבו םכרעב םיוושו ןירוח "
    "ינב ודלונ םדאה ינב לכ",  # from left to right, as it is drawn
}  # fmt: skip
"""The first article of the Universal Declaration of Human Rights."""
CODE = (
    "def decode(data: bytes) -> Picture: header = read(data[:24]) if header.version > 1: raise FormatError(data) "
    "for (int i = 0; i < n; i++) { sum += a[i] * b[i]; } return sum / (n - 1); #include <stdio.h> "
    "SELECT name, COUNT(*) FROM users WHERE id >= 1024 GROUP BY name; git commit -m 'fix: off by one' && make test "
    "https://example.org/a/b.html?q=3&lang=en#top ERROR 404: [/var/log/app.log:17] x_2 = 0.5e-3 + {'key': [1, 2]}"
)
_SIGNS = "0123456789+-=<>()[]{}%&@#*/\\|_~^$°«»…©  "
_LABELS = (
    "File", "Edit", "View", "Help", "Tools", "Open", "Save as…", "Cancel", "OK", "Apply", "Close", "Settings", "Name",
    "Size", "Type", "Date", "Search", "Network", "Printer", "Colour", "Layer 1", "Undo", "Insert", "Format", "Window",
    "Account", "Password", "Language", "Options", "Total", "Price", "Update", "Download", "Export", "Next", "Back",
)  # fmt: skip

_PLACES = (
    "Newton",
    "Lakeside",
    "Bridge Street",
    "Mill Lane",
    "St. Mary",
    "Old Town",
    "Station",
    "River Park",
    "Westfield",
    "Castle Hill",
    "Market Square",
    "Harbour",
    "A 27",
    "412 m",
    "Church Road",
    "North End",
    "Blackwood",
    "Airport",
)


@functools.cache
def faces() -> tuple[str, ...]:
    """The fonts that there are: Pillow's own, and those of matplotlib where it is installed."""
    spec = importlib.util.find_spec("matplotlib")
    found = [_BUNDLED]
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"
        found += [str(path) for name in _FILES if (path := folder / f"{name}.ttf").is_file()]
    return tuple(found)


def languages(face: str) -> tuple[str, ...]:
    """The languages of `ARTICLE` that one of `faces` has all letters of."""
    return _FILES[Path(face).stem] if face else _ASCII


@functools.lru_cache(maxsize=512)
def font(face: str, size: int) -> FreeTypeFont:
    """One of `faces` in a size of so many pixels."""
    if face:
        return ImageFont.truetype(face, size, layout_engine=ImageFont.Layout.BASIC)
    bundled = ImageFont.load_default(size)
    assert isinstance(bundled, FreeTypeFont)  # Pillow's wheels are built with FreeType
    return bundled


def face(rng: Generator) -> str:
    """One of `faces`."""
    found = faces()
    return found[rng.integers(len(found))]


def plain_face(rng: Generator) -> str:
    """One of `faces` for labels of interfaces and charts: without serifs, upright."""
    found = [path for path in faces() if Path(path).stem in ("", "DejaVuSans", "DejaVuSansMono")]
    return found[rng.integers(len(found))]


def running_text(rng: Generator, face: str) -> str:
    """What a page may say: mostly an article in a language, also a program, figures and signs, or capitals."""
    style = rng.random()
    if style < 0.1:
        return "".join(_SIGNS[i] for i in rng.integers(0, len(_SIGNS), 300))
    if style < 0.25:
        return CODE
    names = languages(face)
    name = names[rng.integers(len(names))]
    return ARTICLE[name].upper() if style > 0.92 and name != "ka" else ARTICLE[name]  # Georgian has no capitals here


def lines(rng: Generator, text: str, letters: int, count: int) -> list[str]:
    """``count`` lines of at most so many letters of ``text``, which begins anew where it ends, parted at spaces."""
    at = int(rng.integers(len(text)))
    text = f"{text} " * (-(-(at + letters * count) // (len(text) + 1)) + 1)
    at, found = text.rfind(" ", 0, at) + 1, []
    for _ in range(count):
        end = text.rfind(" ", at, at + letters + 1)
        end = end + 1 if end > at else at + letters
        found.append(text[at:end])
        at = end
    return found


def words(rng: Generator, count: int) -> str:
    """A label of so many English words."""
    if count == 1:
        return _LABELS[rng.integers(len(_LABELS))]
    found = ARTICLE["en"].replace(".", "").split()
    start = int(rng.integers(len(found) - count))
    return " ".join(found[start : start + count]).capitalize()


def place(rng: Generator) -> str:
    """A name for a map."""
    return _PLACES[rng.integers(len(_PLACES))]
