"""Languages other than English: what passes, what is refused, and what is a near-duplicate."""

import numpy as np
import pytest

from crawltalk.core.errors import BadRecipe
from crawltalk.data.dedup import band_hashes, jaccard, ngram_hashes, word_spans
from crawltalk.data.filters import decontamination
from crawltalk.data.filters.language import labels
from crawltalk.data.filters.quality import filters
from crawltalk.data.filters.rules import all_rules, check_languages
from crawltalk.data.filters.words import LETTER, PART, words_of
from crawltalk.recipe import Quality
from data.test_charset import TEXTS
from support.pages import LEAD, document

GOOD = {
    "zh": "河水在到达旧磨坊之前转了两个弯。春天水位升高，行人改走木桥。"
    "磨坊主的孙子在屋后的果园里养蜂，星期六可以在门口买到蜂蜜。"
    "村委会修好了水车，孩子们可以看到从前是怎样磨谷子的。进去参观"
    "不用付钱。目录仍然写在纸卡片上。两位馆员每天工作到晚上九点。",
    "ja": "川は古い水車小屋の手前で二度曲がります。春には水かさが増すの"
    "で、散歩する人は木の橋を渡ります。粉屋の孫は家の裏の果樹園で"
    "蜂を飼っています。土曜日には門の前で蜂蜜を買うことができます"
    "。村は水車を直したので、子どもたちは昔の仕事を見られます。",
    "ko": "강은 낡은 물레방앗간에 닿기 전에 두 번 굽는다. 봄에는 물이 불"
    "어나서 걷는 사람들은 나무다리를 건넌다. 방앗간 주인의 손자는"
    " 집 뒤의 과수원에서 벌을 친다. 토요일에는 문 앞에서 꿀을 살 수"
    " 있다. 마을은 물레를 고쳐서 아이들이 옛날 일을 볼 수 있게 했다.",
    "th": "แม่น้ำโค้งสองครั้งก่อนถึงโรงสีเก่า ในฤดูใบไม้ผลิน้ำจะสูงขึ้น คนเดินจึงใช้สะพานไม้แทน "
    "หลานชายของเจ้าของโรงสีเลี้ยงผึ้งในสวนผลไม้"
    "หลังบ้าน ผู้มาเยือนซื้อน้ำผึ้งได้ที่ประตูในวันเสาร์ หมู่บ้านได้ซ่อมกังหันเพื่อให้เด็ก ๆ "
    "เห็นว่าเมื่อก่อนโม่ข้าวกันอย่างไร การเข้าชมไม่ต้องเสียเงิน",
    "de": "Der Fluss biegt zweimal ab, bevor er die alte Mühle erreicht. Im Frühling steigt das "
    "Wasser, und die Wanderer nehmen"
    " die Brücke aus Holz. Der Enkel des Müllers hält in dem Garten hinter dem Haus Bienen. "
    "Am Samstag kann man an der Tür Honig"
    " kaufen. Das Dorf hat das Rad wieder gebaut, und die Kinder sehen dort, wie man früher "
    "das Korn der Bauern mahlte.",
    "ru": "Река дважды поворачивает, прежде чем доходит до старой мельницы. Весной вода "
    "поднимается, и люди ходят по деревянному"
    " мосту. Внук мельника держит пчёл в саду за домом, и в субботу у ворот можно купить "
    "мёд. Деревня починила колесо, чтобы"
    " дети видели, как раньше мололи зерно. За вход никто не платит, а зимой здесь почти "
    "никого не бывает, и река тиха.",
}


def verdict(text: str, language: str) -> str | None:
    """The first filter's reason to drop a text."""
    page = document(text, language=language)
    for check in filters(Quality()).values():
        result = check(page)
        if isinstance(result, str):
            return result
        page = result or page
    return None


@pytest.mark.parametrize("language", sorted(GOOD))
def test_good_prose_passes_with_the_default_thresholds(language: str):
    assert verdict(GOOD[language], language) is None


@pytest.mark.parametrize("language", sorted(GOOD))
def test_bad_text_is_dropped_in_every_language(language: str):
    start = GOOD[language][:12]
    assert "duplicate lines" in str(verdict("\n".join([GOOD[language]] * 4), language))
    assert "gram" in str(verdict(GOOD[language] + start * 40, language))
    numbers = " ".join(str(number) for number in range(1000, 1400))
    assert verdict(f"{numbers} {GOOD[language][:60]}", language) == "words without a letter"
    menu = "\n".join(GOOD[language][at : at + 4] for at in range(0, 160, 4))
    assert verdict(menu, language) is not None


def test_characters_of_scripts_without_blanks_are_parts_of_words():
    words = words_of("我们用FastAPI写网页。ที่นี่", True)
    assert [int(length) for length in words.lengths] == [1, 1, 1, 7, 1, 1, 1, 1, 3, 3]
    assert np.count_nonzero(words.kinds & PART) == 8 and np.count_nonzero(words.kinds & LETTER) == 9


def test_the_thresholds_of_a_recipe_count_in_every_language():
    page = document(GOOD["zh"][:60], language="zh")
    checks = filters(Quality(min_words=10, terminal_lines=0))
    assert all(not isinstance(check(page), str) for check in checks.values())


@pytest.mark.parametrize("language", ["km", "my", "lo", "bo"])
def test_a_language_that_cannot_be_judged_is_refused_with_the_reason(language: str):
    with pytest.raises(BadRecipe, match=f"data.languages: '{language}' has no thresholds") as error:
        check_languages(["en", language])
    assert "\n" not in str(error.value)


def test_a_language_that_does_not_exist_is_refused():
    with pytest.raises(BadRecipe, match="'english' is no language"):
        check_languages(["english"])
    check_languages(["en", "zh", "ja", "ko", "th", "ar", "hi", "ru", "de", "fr", "es"])
    assert set(all_rules()) <= {*labels()}


@pytest.mark.parametrize("language", ["zh", "ja", "th", "ko", "ru"])
def test_near_duplicates_are_found_in_every_script(language: str):
    text = GOOD[language] + TEXTS[language]
    edited = text[:-3]
    assert 0.8 < jaccard(text, edited) < 1 and jaccard(GOOD[language], TEXTS[language]) < 0.1
    assert (band_hashes(text) == band_hashes(edited)).any()


def test_hashed_words_are_those_whose_places_are_known():
    for text in (*GOOD.values(), LEAD, "AI技术 2 हिन्दी में", "", "。"):
        assert len(ngram_hashes(text, 1)) == max(1, len(word_spans(text)))
    assert [LEAD[:30].lower()[start:end] for start, end in word_spans(LEAD[:30])] == LEAD[:30].lower().split()


def test_text_of_an_evaluation_set_is_found_inside_a_chinese_sentence(tmp_path):
    (tmp_path / "a.txt").write_text("磨坊主的孙子在屋后的果园里养蜂", encoding="utf-8")
    check = decontamination.filter_by(decontamination.read_benchmarks([str(tmp_path / "a.txt")], 5), 5)
    assert "文" not in str(check(document(GOOD["zh"]))) and "evaluation set" in str(
        check(document(GOOD["zh"]))
    )
    assert check(document(TEXTS["zh"])) is None
