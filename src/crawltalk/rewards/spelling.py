"""One spelling for what people and models write in several ways: signs, spaces, exponents, thousands, money."""

import re

_MINUS = re.compile(r"[\u2010-\u2013\u2212\ufe63\uff0d]|\\text\{-\}")
_THIN = r"(?:(?<!\\)\\[!,;: ]|[\u2009\u200a\u202f\u00a0~])"
_THIN_IN_NUMBER = re.compile(rf"(?<=[\d,])\s*{_THIN}\s*(?=\d)")
_THIN_ELSEWHERE = re.compile(_THIN)
_UNITS = re.compile(r"\\?[$€£]|°|\^\s*\{?\s*\\circ\s*\}?")
_POWER = re.compile(r"(?<=\d)[eE]([-+]?\d{1,3})(?!\w)")
_LONG_EXPONENT = re.compile(r"\^\s*(-?\d{2,}|-\d)")
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")
_RAISED_DIGITS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SIGNS = str.maketrans(
    {
        "×": r"\times ",
        "·": r"\cdot ",
        "÷": "/",
        "π": r"\pi ",
        "∞": r"\infty ",
        "≤": r"\le ",
        "≥": r"\ge ",
    }
)
_THOUSANDS = re.compile(r"(?<![\d,.(\[])\d{1,3}(?:,\d{3})+(?![\d,)\]])")


def plain(text: str) -> str:
    """Minus signs and spaces of one kind, no marks of money and degrees, no commas between thousands (but `(1,234)`
    stays a pair).
    """
    text = _THIN_ELSEWHERE.sub(" ", _THIN_IN_NUMBER.sub("", text.replace("{,}", ",")))
    text = _UNITS.sub("", _MINUS.sub("-", text))
    return _THOUSANDS.sub(lambda found: found[0].replace(",", ""), text).strip()


def latex(text: str) -> str:
    """The same as LaTeX, in which `1e3`, `2^10` and `x**2` say what they are meant to say."""
    text = plain(text).translate(_SIGNS).removesuffix(".").replace(r"\text {", r"\text{")
    text = _RAISED.sub(lambda found: f"^{{{found[0].translate(_RAISED_DIGITS)}}}", text)
    text = _POWER.sub(r" \\times 10^{\1}", text.replace("**", "^"))
    return _LONG_EXPONENT.sub(r"^{\1}", text).strip()
