"""The languages of speech by their codes of ISO 639-1, as clients of transcription send them (Whisper's list)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mullama.errors import Invalid

_TABLE = """\
en:English zh:Chinese de:German es:Spanish ru:Russian ko:Korean fr:French ja:Japanese pt:Portuguese tr:Turkish
pl:Polish ca:Catalan nl:Dutch ar:Arabic sv:Swedish it:Italian id:Indonesian hi:Hindi fi:Finnish vi:Vietnamese
he:Hebrew uk:Ukrainian el:Greek ms:Malay cs:Czech ro:Romanian da:Danish hu:Hungarian ta:Tamil no:Norwegian
th:Thai ur:Urdu hr:Croatian bg:Bulgarian lt:Lithuanian la:Latin mi:Maori ml:Malayalam cy:Welsh sk:Slovak
te:Telugu fa:Persian lv:Latvian bn:Bengali sr:Serbian az:Azerbaijani sl:Slovenian kn:Kannada et:Estonian
mk:Macedonian br:Breton eu:Basque is:Icelandic hy:Armenian ne:Nepali mn:Mongolian bs:Bosnian kk:Kazakh
sq:Albanian sw:Swahili gl:Galician mr:Marathi pa:Punjabi si:Sinhala km:Khmer sn:Shona yo:Yoruba so:Somali
af:Afrikaans oc:Occitan ka:Georgian be:Belarusian tg:Tajik sd:Sindhi gu:Gujarati am:Amharic yi:Yiddish lo:Lao
uz:Uzbek fo:Faroese ht:Haitian ps:Pashto tk:Turkmen nn:Nynorsk mt:Maltese sa:Sanskrit lb:Luxembourgish
my:Burmese bo:Tibetan tl:Tagalog mg:Malagasy as:Assamese tt:Tatar haw:Hawaiian ln:Lingala ha:Hausa ba:Bashkir
jv:Javanese su:Sundanese yue:Cantonese
"""
LANGUAGES: Final[Mapping[str, str]] = dict(entry.split(":") for entry in _TABLE.split())
_CODES: Final[Mapping[str, str]] = {name.casefold(): code for code, name in LANGUAGES.items()}


def language_name(asked: str) -> str:
    """Return the English name of a language.

    asked: a code, with or without a region (`en`, `pt-BR`), or the name. Raises `Invalid` for another text.
    """
    text = asked.strip().casefold()
    code = text if text in LANGUAGES else text.replace("_", "-").partition("-")[0]
    code = _CODES.get(text, code)
    if code not in LANGUAGES:
        raise Invalid(
            f"language {asked[:40]!r} is not known", hint="send a code of ISO 639-1, for example en", field="language"
        )
    return LANGUAGES[code]
