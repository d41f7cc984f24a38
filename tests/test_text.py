"""One notion of a word: what searching, comparing, counting and the held-out guard make of a text."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from nearer.data.corpus import Corpus
from nearer.data.heldout import HeldOut
from nearer.data.near import near_duplicates, normalise
from nearer.measure.slices import SliceEvidence, automatic_slices
from nearer.search.filters import Phrases
from nearer.search.lexical import BM25
from nearer.text import (
    count_words,
    fold,
    folded_line,
    folded_words,
    pieces,
    search_terms,
    token_spans,
    words,
)
from nearer.types import Document, Query

EXAMPLES = Path(__file__).parent.parent / "examples"

#: script → (documents, queries: the query at a position asks for the document there)
SEARCHES = {
    "latin": (
        ["Le café est fermé l'été", "Der Schlüssel passt in die Tür", "Año nuevo en la ciudad"],
        ["CAFE\u0301 FERMÉ", "schlüssel TÜR", "an\u0303o"],
    ),
    "cyrillic": (
        ["Замените фильтр воды", "Нажмите кнопку питания", "Откройте дверцу принтера"],
        ["фильтр", "КНОПКУ", "дверцу"],
    ),
    "greek": (
        ["Ο ΔΡΟΜΟΣ είναι κλειστός", "Αλλάξτε το φίλτρο νερού", "Πατήστε το κουμπί"],
        ["δρομος", "ΦΊΛΤΡΟ", "κουμπί"],
    ),
    "arabic": (
        ["استبدل مرشح المياه", "اضغط على زر التشغيل", "افتح باب الطابعة"],
        ["مرشح", "زر", "الطابعة"],
    ),
    "persian": (
        ["می\u200cخواهم فیلتر را عوض کنم", "دکمه را فشار دهید", "در چاپگر را باز کنید"],
        ["می\u200cخواهم", "دکمه", "چاپگر"],
    ),
    "devanagari": (
        ["हिन्दी में लिखना", "पानी का फ़िल्टर बदलें", "प्रिंटर का दरवाज़ा खोलें"],
        ["हिन्दी", "फ़िल्टर", "दरवाज़ा"],
    ),
    "han": (
        ["请更换净水器的滤芯", "按下电源按钮三秒钟", "打开打印机的前盖"],
        ["更换滤芯", "电源按钮", "打印机前盖"],
    ),
    "japanese": (
        [
            "浄水器のフィルターを交換してください",
            "電源ボタンを押します",
            "プリンターのカバーを開く",
        ],
        ["ﾌｨﾙﾀｰ交換", "電源ボタン", "カバー"],
    ),
    "thai": (
        ["เปลี่ยนไส้กรองน้ำ", "กดปุ่มเปิดเครื่อง", "เปิดฝาเครื่องพิมพ์"],
        ["ไส้กรอง", "กดปุ่ม", "เครื่องพิมพ์"],
    ),
    "khmer": (
        ["ប្តូរតម្រង\u200bទឹក", "ចុចប៊ូតុងថាមពល", "បើកគម្របម៉ាស៊ីនបោះពុម្ព"],
        ["តម្រងទឹក", "ប៊ូតុង", "បោះពុម្ព"],
    ),
    "lao": (
        ["ປ່ຽນໄສ້ຕອງນ້ຳ", "ກົດປຸ່ມເປີດ", "ເປີດຝາເຄື່ອງພິມ"],
        ["ໄສ້ຕອງ", "ກົດປຸ່ມ", "ເຄື່ອງພິມ"],
    ),
    "myanmar": (
        ["ရေစစ်ကိုလဲပါ", "ခလုတ်ကိုနှိပ်ပါ", "ပရင်တာအဖုံးကိုဖွင့်ပါ"],
        ["ရေစစ်", "ခလုတ်", "အဖုံး"],
    ),
    "hangul": (
        ["정수기 필터 교체 방법", "전원 버튼 누르기", "프린터 덮개 열기"],
        ["필터", "\u1107\u1165\u1110\u1173\u11ab", "덮개"],
    ),
}

#: script → a text of about 70 characters, or 20 words, with one place that differs
TEMPLATES = {
    "latin": "Veuillez lire très attentivement toutes les consignes de sécurité avant la première "
    "utilisation de cet appareil à la maison et garder ce manuel {} pour vos besoins à venir ici",
    "cyrillic": "Пожалуйста внимательно прочитайте все указания по безопасности перед первым "
    "использованием этого прибора дома и сохраните данное руководство {} чтобы читать его потом снова",
    "greek": "Παρακαλώ διαβάστε προσεκτικά όλες τις οδηγίες ασφαλείας πριν από την πρώτη χρήση της "
    "συσκευής αυτής στο σπίτι σας και φυλάξτε το εγχειρίδιο {} για κάθε μελλοντική σας χρήση εδώ",
    "arabic": "يرجى قراءة جميع تعليمات السلامة بعناية قبل استخدام هذا الجهاز للمرة الأولى في المنزل "
    "أو في المكتب الصغير ثم الاحتفاظ بهذا الدليل {} للرجوع إليه عند الحاجة في المستقبل القريب",
    "devanagari": "कृपया पहली बार इस उपकरण का उपयोग करने से पहले सभी सुरक्षा निर्देशों को ध्यान से पढ़ें और इस "
    "पुस्तिका को आगे के लिए {} सुरक्षित स्थान पर संभाल कर रखें ताकि काम आए",
    "han": "本产品适用于家庭和小型办公环境，请在使用之前仔细阅读全部安全说明，并将本手册妥善保存以备"
    "日后查阅参考，如有任何问题请联系当地的授权服务中心第{}号窗口",
    "japanese": "本製品は家庭および小規模な事務所での使用を想定しています。使用前に安全上の注意をすべて"
    "よく読み、この説明書を大切に保管し、第{}窓口にお問い合わせください",
    "thai": "โปรดอ่านคำแนะนำด้านความปลอดภัยทั้งหมดอย่างละเอียดก่อนใช้งานเครื่องนี้เป็นครั้งแรกที่บ้าน"
    "หรือที่สำนักงานขนาดเล็กห้อง{}และเก็บคู่มือนี้ไว้เพื่อใช้อ้างอิงในอนาคต",
    "khmer": "សូមអានការណែនាំអំពីសុវត្ថិភាពទាំងអស់ដោយប្រុងប្រយ័ត្នមុនពេលប្រើឧបករណ៍នេះជាលើកដំបូងនៅផ្ទះ"
    "ឬនៅការិយាល័យតូចបន្ទប់{}ហើយរក្សាទុកសៀវភៅណែនាំនេះសម្រាប់ប្រើនៅពេលក្រោយ",
    "lao": "ກະລຸນາອ່ານຄຳແນະນຳດ້ານຄວາມປອດໄພທັງໝົດຢ່າງລະອຽດກ່ອນໃຊ້ເຄື່ອງນີ້ເປັນຄັ້ງທຳອິດຢູ່ເຮືອນ"
    "ຫຼືຢູ່ຫ້ອງການຂະໜາດນ້ອຍຫ້ອງ{}ແລະເກັບຮັກສາຄູ່ມືນີ້ໄວ້ເພື່ອໃຊ້ອ້າງອີງໃນອະນາຄົດ",
    "hangul": "이 제품을 가정이나 작은 사무실에서 처음 사용하기 전에 모든 안전 지침을 주의 깊게 읽고 나중에 "
    "참고할 수 있도록 이 설명서를 창구 {} 옆에 잘 보관해 주시기 바라며 궁금한 점은 문의해 주십시오",
}
PLACES = {
    "latin": ("2", "3"),
    "cyrillic": ("2", "3"),
    "greek": ("2", "3"),
    "arabic": ("٢", "٣"),
    "devanagari": ("२", "३"),
    "han": ("一", "二"),
    "japanese": ("一", "二"),
    "thai": ("ก", "ข"),
    "khmer": ("ក", "ខ"),
    "lao": ("ກ", "ຂ"),
    "hangul": ("가", "나"),
}


@pytest.mark.parametrize("script", SEARCHES)
def test_bm25_finds_the_right_document_first(script: str) -> None:
    texts, queries = SEARCHES[script]
    bm25 = BM25(Corpus.from_documents(Document(f"d{i}", text) for i, text in enumerate(texts)))
    run = bm25.search([Query(f"q{i}", text) for i, text in enumerate(queries)], 3)
    assert [run.top(f"q{i}", 1) for i in range(3)] == [["d0"], ["d1"], ["d2"]]


@pytest.mark.parametrize("script", TEMPLATES)
def test_texts_that_differ_in_one_character_are_near_duplicates(script: str) -> None:
    one, other = (TEMPLATES[script].format(place) for place in PLACES[script])
    threshold = 0.9 if script in {"han", "japanese", "thai", "khmer", "lao"} else 0.7
    assert near_duplicates([one, other], threshold).groups == ((0, 1),)


@pytest.mark.parametrize("script", TEMPLATES)
def test_the_guard_catches_a_held_out_query_that_was_changed_a_little(script: str) -> None:
    held, leaked = (TEMPLATES[script].format(place) for place in PLACES[script])
    threshold = 0.9 if script in {"han", "japanese", "thai", "khmer", "lao"} else 0.7
    guard = HeldOut.of([held], threshold)
    assert guard.collides(leaked) == "near-duplicate"
    assert guard.collides(f"  {held.upper()} ! ") == "exact"
    assert guard.collides(SEARCHES["han"][0][0]) is None


@pytest.mark.parametrize("script", ["han", "japanese", "thai", "khmer", "lao"])
def test_different_texts_without_blanks_are_no_near_duplicates(script: str) -> None:
    assert near_duplicates(SEARCHES[script][0], 0.5).groups == ()


def test_one_of_seventy_characters_may_differ_wherever_it_stands() -> None:
    text = "".join(chr(0x4E00 + 7 * number) for number in range(70))
    for place in range(70):
        other = text[:place] + "龍" + text[place + 1 :]
        assert near_duplicates([text, other], 0.9).groups == ((0, 1),), place


def test_two_characters_in_another_order_are_another_text() -> None:
    assert near_duplicates(["上海", "海上"], 0.9).groups == ()


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("安全说明。", "安全说明"),
        ("「安全」、说明！", "安全 说明"),
        ("ＡＢＣ１２", "abc12"),
        ("ｶﾞｲﾄﾞ", "ガイド"),
        ("कृपया पढ़ें।", "कृपया पढ़ें"),
        ("هل يعمل؟", "هل يعمل"),
        ("co\u00adoperate", "cooperate"),
        ("secret\u200b query", "secret query"),
        ("Straße", "STRASSE"),
    ],
)
def test_case_width_invisible_characters_and_punctuation_of_any_script_tell_nothing_apart(
    text: str, other: str
) -> None:
    assert normalise(text) == normalise(other)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("滤", ["滤"]),
        ("滤芯", ["滤芯"]),
        ("换滤芯", ["换滤", "滤芯"]),
        ("Wi-Fiルーター", ["wi", "fi", "ルー", "ータ", "ター"]),
        ("第3号 水", ["第", "3", "号", "水"]),
        ("𠮷野家", ["𠮷野", "野家"]),
        ("น้ำ", ["น้ํา"]),
        ("한국어 단어", ["한국어", "단어"]),
        ("हिन्दी।", ["हिन्दी"]),
        ("don't C++ x", ["don", "t", "c", "x"]),
        ("❤️ 1️⃣", ["1"]),
        ("", []),
    ],
)
def test_scripts_without_blanks_are_searched_by_pairs_of_characters(
    text: str, expected: list[str]
) -> None:
    assert folded_words(text) == expected


def test_single_letters_are_not_indexed_and_single_characters_are() -> None:
    assert search_terms("a b2 水 ab") == ["b2", "水", "ab"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Read all of the manual — now.", 7),
        ("如何更换滤芯？", 6),
        ("Wi-Fiルーター の設定", 8),
        ("คู่มือ", 3),
        ("한국어 단어", 2),
        ("", 0),
    ],
)
def test_words_are_counted_by_blanks_or_else_by_characters(text: str, expected: int) -> None:
    assert count_words(text) == expected


def test_the_length_of_a_query_without_blanks_tells_its_slice() -> None:
    queries = [Query("short", "净水器"), Query("medium", "净水器滤芯"), Query("long", "净水器" * 5)]
    slices = automatic_slices(queries, SliceEvidence())
    assert slices["short query"] == {"short"}
    assert slices["medium query"] == {"medium"}
    assert slices["long query"] == {"long"}


def test_phrases_are_found_where_no_blanks_stand() -> None:
    finder = Phrases([("東京", False), ("C++", False), ("ガイド", False)])
    assert finder.find(words("東京のc++ガイドブック")) == ["東京", "C++", "ガイド"]


def test_chunkers_may_cut_between_the_characters_of_a_text_without_blanks() -> None:
    text = "กดปุ่ม. 按下 ok"
    assert [text[start:end] for start, end in token_spans(text)] == [
        *("ก", "ด", "ปุ่", "ม", ".", "按", "下", "ok")
    ]


def test_pieces_lose_nothing_but_blanks() -> None:
    for documents, queries in SEARCHES.values():
        for text in (*documents, *queries):
            assert "".join(pieces(text)) == "".join(text.split())


def test_english_has_the_words_that_it_had() -> None:
    """The former rules, kept here: BM25's, those of slices, of filters and of counting."""
    lines = (EXAMPLES / "cwe" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    for record in map(json.loads, lines[::5]):
        text = f"{record['title']} {record['text']}"
        assert search_terms(text) == re.findall(r"\b\w\w+\b", text.lower())
        assert folded_words(text) == re.findall(r"\w+", text.casefold())
        assert words(text) == re.findall(r"[\w+#]+", text)
        assert count_words(text) == len(text.split())


def test_folding_is_the_same_however_often() -> None:
    for text in ("ǅ ﬁn ΐ İ ﷺ ①", "Ａ\u0301", "ﾊﾟ", "ẞ ſ K Å"):
        assert fold(fold(text)) == fold(text)
    assert folded_line(" Ａ\n b ") == "a b"
