"""The guess of a language is right or silent, and a row unlike the rest is named."""

from __future__ import annotations

import pytest

from tuition.data import Reading
from tuition.data.language import language_of

# Article 1 of the Universal Declaration of Human Rights, and a sentence to each where it is short
ARTICLE = {
    "English": "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience and should act towards one another in a spirit of brotherhood.",
    "German": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt und sollen einander im Geiste der Brüderlichkeit begegnen.",
    "French": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de conscience et doivent agir les uns envers les autres dans un esprit de fraternité.",
    "Spanish": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y conciencia, deben comportarse fraternalmente los unos con los otros.",
    "Portuguese": "Todos os seres humanos nascem livres e iguais em dignidade e em direitos. Dotados de razão e de consciência, devem agir uns para com os outros em espírito de fraternidade.",
    "Italian": "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. Essi sono dotati di ragione e di coscienza e devono agire gli uni verso gli altri in spirito di fratellanza.",
    "Dutch": "Alle mensen worden vrij en gelijk in waardigheid en rechten geboren. Zij zijn begiftigd met verstand en geweten, en behoren zich jegens elkander in een geest van broederschap te gedragen.",
    "Swedish": "Alla människor är födda fria och lika i värde och rättigheter. De är utrustade med förnuft och samvete och bör handla gentemot varandra i en anda av broderskap, och det är inte svårt att förstå.",
    "Danish or Norwegian": "Alle mennesker er født frie og lige i værdighed og rettigheder. De er udstyret med fornuft og samvittighed, og de bør handle mod hverandre i en broderskabets ånd.",
    "Finnish": "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan. Heille on annettu järki ja omatunto, ja heidän on toimittava toisiaan kohtaan veljeyden hengessä, mutta se ei ole aina helppoa.",
    "Polish": "Wszyscy ludzie rodzą się wolni i równi w swojej godności i w swoich prawach. Są obdarzeni rozumem i sumieniem i powinni postępować wobec siebie w duchu braterstwa. To nie jest łatwe, ale tak jest dla każdego.",
    "Turkish": "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana sahiptirler ve birbirlerine karşı kardeşlik zihniyeti ile hareket etmelidirler. Bu çok önemli bir ilkedir.",
    "Indonesian": "Semua orang dilahirkan merdeka dan mempunyai martabat dan hak-hak yang sama. Mereka dikaruniai akal dan hati nurani dan hendaknya bergaul satu sama lain dalam semangat persaudaraan.",
    "Vietnamese": "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền. Mọi con người đều được tạo hóa ban cho lý trí và lương tâm và cần phải đối xử với nhau trong tình bằng hữu.",
    "Romanian": "Toate ființele umane se nasc libere și egale în demnitate și în drepturi. Ele sunt înzestrate cu rațiune și conștiință și trebuie să se comporte unele față de altele în spiritul fraternității.",
    "Cyrillic script": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью и должны поступать в отношении друг друга в духе братства.",
    "Greek": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "Arabic script": "يولد جميع الناس أحراراً متساوين في الكرامة والحقوق. وقد وهبوا عقلاً وضميراً وعليهم أن يعامل بعضهم بعضاً بروح الإخاء.",
    "Hebrew": "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם. כולם חוננו בתבונה ובמצפון.",
    "Chinese": "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。这是非常重要的原则。",
    "Japanese": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "Korean": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 천부적으로 이성과 양심을 부여받았으며",
    "Thai": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
}


@pytest.mark.parametrize("language", ARTICLE)
def test_a_sentence_or_two_show_their_language(language: str) -> None:
    assert language_of(ARTICLE[language]) == language


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Paris",
        "The answer is 42.",
        "def f(x):\n    return [y for y in x if y]\n\nfor line in stream:\n    print(f(line), end='')\n" * 3,
        "x = 1\ny = 2\nSELECT a, b FROM t WHERE a > b GROUP BY b HAVING count(a) > 3 ORDER BY a LIMIT 9 OFFSET 2",
        "48/2 = <<48/2=24>>24 24+48 = <<24+48=72>>72",
        f"{ARTICLE['English']} {ARTICLE['French']}",
        f"{ARTICLE['English']} {ARTICLE['Cyrillic script']}",
        "Omnes homines liberi aequique dignitate atque iuribus nascuntur. Ratione conscientiaque praediti sunt "
        "et alii erga alios cum fraternitate se gerere debent.",
    ],
)
def test_where_a_language_does_not_show_nothing_is_said(text: str) -> None:
    assert language_of(text) == ""


def rows(**languages: int) -> list[tuple[str, str]]:
    return [(f"{name} {n}?", ARTICLE[name]) for name, count in languages.items() for n in range(count)]


def test_a_row_unlike_the_rest_is_named() -> None:
    reading = Reading(rows=[*rows(English=30), ("x?", ARTICLE["French"]), ("Paris", "yes")], deep=True)
    list(reading)
    assert [(f.code, f.origin.line, f.message) for f in reading.ledger.findings] == [
        ("D048", 31, "the row seems to be in French; 96.8% are in English")
    ]


@pytest.mark.parametrize("mixture", [{"English": 20, "German": 20}, {"English": 10, "German": 1}])
def test_a_mixture_or_a_few_rows_have_no_rest_to_be_unlike(mixture: dict[str, int]) -> None:
    reading = Reading(rows=rows(**mixture), deep=True)
    list(reading)
    assert reading.ledger.findings == []


def test_languages_and_personal_data_are_looked_for_only_when_asked() -> None:
    given = [*rows(English=30), ("x?", ARTICLE["French"]), ("mail?", "ann@mail.org")]

    def codes(deep: bool) -> list[str]:
        reading = Reading(rows=given, deep=deep)
        list(reading)
        return [f.code for f in reading.ledger.findings]

    assert (codes(False), codes(True)) == ([], ["D045", "D048"])
