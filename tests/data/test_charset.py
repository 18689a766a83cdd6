"""From bytes to text: labels that are missing, unknown or wrong, and single bytes gone wrong."""

import codecs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.data.extract.main_text import extract
from crawltalk.data.read.charset import _ENCODINGS, damage, decode, encoding_of, is_wide, to_utf8
from support.pages import LEAD

TEXTS = {
    "ja": "図書館の新しい閲覧室は十月に開きます。窓ぎわには四十の机"
    "が並び、それぞれに電灯があります。学生は朝早く来ます。",
    "ko": "도서관의 새 열람실은 시월에 문을 연다. 창가에는 마"
    "흔 개의 책상이 놓여 있고 책상마다 등이 하나씩 있다.",
    "zh": "图书馆的新阅览室在十月开放。窗边摆着四十张书桌，每张桌子都有自己的台灯。学生们来得很早。",
    "zh-hant": "圖書館的新閱覽室在十月開放。窗邊擺著四十張書桌，每張桌子都有自己的檯燈。學生們來得很早。",
    "ru": "Новый читальный зал библиотеки открылся в октябре. Вдоль окон стоят сорок столов, и на "
    "каждом есть лампа.",
    "el": "Το νέο αναγνωστήριο της βιβλιοθήκης άνοιξε τον Οκτώβριο. Κοντά στα παράθυρα υπάρχουν "
    "σαράντα γραφεία.",
    "he": "אולם הקריאה החדש של הספרייה נפתח באוקטובר. ליד החלונות עומדים ארבעים שולחנות, ולכל אחד מנורה.",
    "ar": "افتتحت قاعة المطالعة الجديدة في المكتبة في شهر أكتوبر. بجانب النوافذ أربعون مكتبا، ولكل "
    "مكتب مصباح.",
    "th": "ห้องอ่านหนังสือใหม่ของห้องสมุดเปิดในเดือนตุลาคม ริมหน้าต่างมีโต๊ะสี่สิบตัว และแต่ละตัวมีโคมไฟของตัวเอง",
    "tr": "Kütüphanenin yeni okuma salonu ekim ayında açıldı. Pencerelerin önünde kırk masa var, "
    "her birinin ışığı var.",
    "pl": "Nowa czytelnia biblioteki została otwarta w październiku. Wzdłuż okien stoi "
    "czterdzieści biurek, każde ma lampę.",
    "cs": "Nová čítárna knihovny byla otevřena v říjnu. Podél oken stojí čtyřicet stolů a každý má "
    "svou lampu.",
    "de": "Der neue Lesesaal der Bücherei wurde im Oktober eröffnet. Vor den Fenstern stehen "
    "schöne große Tische für Schüler.",
    "fr": "La nouvelle salle de lecture a été ouverte en octobre. Près des fenêtres, quarante "
    "bureaux sont éclairés.",
}
LEGACY = [
    *(("ja", "euc_jp"), ("ja", "cp932"), ("ja", "iso2022_jp"), ("ko", "cp949"), ("zh", "gb18030")),
    *(("zh-hant", "big5hkscs"), ("ru", "cp1251"), ("ru", "koi8-r"), ("ru", "iso8859-5"), ("el", "cp1253")),
    *(
        ("he", "cp1255"),
        ("ar", "cp1256"),
        ("th", "cp874"),
        ("tr", "cp1254"),
        ("pl", "cp1250"),
        ("pl", "iso8859-2"),
    ),
    *(("cs", "cp1250"), ("de", "cp1252"), ("fr", "cp1252")),
]


def html(text: str, encoding: str, charset: str = "") -> bytes:
    meta = f'<meta charset="{charset}">' if charset else ""
    page = f"<!doctype html><html><head>{meta}<title>News</title></head><body><p>{text}</p><p>Home</p></body></html>"
    return page.encode(encoding)


@pytest.mark.parametrize(("language", "encoding"), LEGACY)
@pytest.mark.parametrize("label", ["", "no-such-charset", "utf-8"])
def test_short_pages_without_a_true_label_are_read(language: str, encoding: str, label: str):
    body = html(TEXTS[language], encoding, label)
    assert TEXTS[language] in decode(body)
    assert to_utf8(body, label or None) == decode(body).encode()


@pytest.mark.parametrize(
    ("language", "encoding"), [pair for pair in LEGACY if pair[0] not in ("de", "fr", "pl", "cs")]
)
def test_a_page_that_a_server_calls_latin_1_is_read(language: str, encoding: str):
    if language != "tr":  # Latin letters, of which a label says more than a detector
        assert TEXTS[language] in decode(html(TEXTS[language], encoding), "iso-8859-1")


@pytest.mark.parametrize(("language", "encoding"), LEGACY)
@pytest.mark.parametrize("stray", [b"\xff", b"\x80"])
def test_a_stray_byte_makes_no_other_page(language: str, encoding: str, stray: bytes):
    text = decode(
        html(TEXTS[language], encoding) + b"<p>" + stray + b"</p>" + html(TEXTS[language], encoding)
    )
    assert text.count(TEXTS[language]) == 2


@pytest.mark.parametrize(
    ("rare", "label", "expected"),
    [
        (b"\xad\xa1\xad\xea\xf9\xa1", "euc-jp", "①㈱纊"),
        (b"\x8f\xb0\xa1\x8e\xb1", "euc-jp", "丂ｱ"),
        (b"\x87\x40\xfa\x9b", "shift_jis", "①"),
        (b"\x80", "gbk", "€"),
        (b"\xa3\xe1", "big5", "€"),
        (b"\x8c\x63", "ks_c_5601-1987", "똠"),
    ],
)
def test_rare_characters_are_read_as_browsers_read_them(rare: bytes, label: str, expected: str):
    language, encoding = {
        "euc-jp": ("ja", "euc_jp"),
        "shift_jis": ("ja", "cp932"),
        "gbk": ("zh", "gb18030"),
        "big5": ("zh-hant", "big5hkscs"),
        "ks_c_5601-1987": ("ko", "cp949"),
    }[label]
    body = html(f"{TEXTS[language]}@", encoding).replace(b"@", rare)
    for charset in (label, None):
        text = decode(body, charset)
        assert TEXTS[language] in text and expected in text


@pytest.mark.parametrize(
    ("header", "meta", "encoding", "language"),
    [
        ("gb2312", "", "gb18030", "zh"),
        (None, "x-sjis", "cp932", "ja"),
        ("windows-1251", "koi8-r", "cp1251", "ru"),  # the header before the meta tag
        (None, "windows-1251", "koi8-r", "ru"),  # and both before nonsense
        (None, "utf-16", "utf-8", "zh"),  # no tag can be read in UTF-16
        ("big5", "", "gb18030", "zh"),
        ("gb2312", "gb2312", "utf-8", "zh"),
        (None, "iso-2022-kr", "iso2022_kr", "ko"),
        (None, "hz-gb-2312", "hz", "zh"),
        (" 'EUC-KR' ", "", "cp949", "ko"),
    ],
)
def test_labels_count_in_the_order_of_browsers_as_far_as_they_can_be_true(header, meta, encoding, language):
    assert TEXTS[language] in decode(html(TEXTS[language], encoding, meta), header)


def test_the_xml_declaration_is_the_last_label():
    body = b'<?xml version="1.0" encoding="ISO-8859-2"?><p>' + "Łódź".encode("iso8859-2")
    assert decode(body).endswith("Łódź") and encoding_of(body, "cp1250") == "cp1250"


def test_a_meta_tag_in_a_comment_is_none():
    body = html(TEXTS["ru"], "cp1251").replace(b"<title>", b"<!-- <meta charset=shift_jis> --><title>")
    assert encoding_of(body) == "cp1251"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
@pytest.mark.parametrize("mark", [True, False])
def test_wide_pages_are_seen_with_and_without_a_mark(encoding: str, mark: bool):
    if encoding == "utf-32-le" and not mark:
        return
    body = html(TEXTS["ja"], encoding)
    body = codecs.BOM_UTF32_LE + body if "32" in encoding else "\ufeff".encode(encoding) * mark + body
    assert is_wide(body) and TEXTS["ja"] in decode(body) and not decode(body).startswith("\ufeff")
    assert not is_wide(html(TEXTS["ja"], "utf-8"))


@pytest.mark.parametrize(
    "text", ["Zoë", "Größe", "café", "naïve façade", "50 €", "“smart” quotes", "El Niño"]
)
def test_a_few_accents_are_latin(text: str):
    assert decode(text.encode("cp1252")) == text
    assert decode(f'<meta charset="iso-8859-1">{text}'.encode("cp1252")).endswith(text)


def test_every_label_names_a_codec():
    names = [line.split()[0] for line in _ENCODINGS.split("\n") if line and not line.startswith(" ")]
    assert len(names) > 35 and all(codecs.lookup(name) for name in names if name != "x-user-defined")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(TEXTS)), st.binary(max_size=3), st.integers(0, 300))
def test_utf_8_with_damage_stays_utf_8(language: str, junk: bytes, position: int):
    body = (TEXTS[language] * 4).encode()
    text = decode(body[:position] + junk + body[position:], "iso-8859-1" if position % 2 else None)
    assert TEXTS[language] in text or "\ufeff" in text or body[:position] == b""


@pytest.mark.parametrize("language", sorted(TEXTS))
def test_good_text_is_not_damaged(language: str):
    assert damage(TEXTS[language]) is None and damage(TEXTS[language].upper()) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (TEXTS["ru"].encode("cp1251").decode("latin-1"), "letters of another encoding"),
        (TEXTS["ko"].encode("cp949").decode("latin-1"), "letters of another encoding"),
        (TEXTS["de"].encode().decode("cp1252"), "UTF-8 read as another encoding"),
        (TEXTS["de"].encode("cp1252").decode("utf-8", "replace"), "characters that cannot be read"),
        (
            "".join(chr(0xF780 + byte % 128) for byte in TEXTS["th"].encode("cp874")),
            "characters without a meaning",
        ),
        (LEAD, None),
        ("A dash — and “quotes” and é.", None),
    ],
)
def test_gibberish_has_a_reason(text: str, reason: str | None):
    assert damage(text) == reason


def test_extraction_reads_legacy_pages():
    body = html(TEXTS["ko"] * 3, "cp949").replace(b"<p>Home", b"<p>Home \xff")
    assert TEXTS["ko"] in (extract(body) or "")
