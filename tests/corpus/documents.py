"""The same small report in four languages and every format that Trivet parses; all of it written here."""

from __future__ import annotations

import html as escaping
import io
from dataclasses import dataclass

from tests.corpus.pdf import page_of, pdf

DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


@dataclass(frozen=True)
class Report:
    """A title and sections of (heading, paragraphs)."""

    language: str
    title: str
    sections: tuple[tuple[str, tuple[str, ...]], ...]
    #: Navigation and imprint: no part of the report.
    furniture: str

    @property
    def paragraphs(self) -> list[str]:
        return [paragraph for _, paragraphs in self.sections for paragraph in paragraphs]


REPORTS = (
    Report(
        "en",
        "Wind power at sea",
        (
            (
                "How a turbine works",
                (
                    (
                        "A wind turbine turns the motion of the air into electricity. Its blades sweep an area larger "
                        "than a football field, and a gearbox or a ring generator makes the slow rotation useful."
                    ),
                    "The power grows with the cube of the wind speed, so that a small gain in wind is worth much.",
                ),
            ),
            (
                "What the grid needs",
                (
                    (
                        "Wind does not blow on demand. Storage, long lines and flexible consumers balance what the "
                        "weather gives, and forecasts tell operators a day ahead how much will come."
                    ),
                ),
            ),
        ),
        "Imprint and cookies",
    ),
    Report(
        "de",
        "Windkraft auf See",
        (
            (
                "Wie ein Windrad arbeitet",
                (
                    (
                        "Ein Windrad wandelt die Bewegung der Luft in Strom um. Seine Flügel überstreichen eine "
                        "Fläche, größer als ein Fußballfeld, und ein Getriebe macht die langsame Drehung nutzbar."
                    ),
                    "Die Leistung wächst mit der dritten Potenz der Windgeschwindigkeit, darum zählt jeder Meter Höhe.",
                ),
            ),
            (
                "Was das Netz braucht",
                (
                    (
                        "Der Wind weht nicht auf Bestellung. Speicher, lange Leitungen und flexible Verbraucher "
                        "gleichen aus, was das Wetter gibt, und Prognosen sagen am Vortag, wie viel kommen wird."
                    ),
                ),
            ),
        ),
        "Impressum und Datenschutz",
    ),
    Report(
        "ja",
        "洋上風力発電",
        (
            (
                "風車のしくみ",
                (
                    (
                        "風力発電機は空気の運動を電気に変える装置である。羽根はサッカー場よりも広い面積を掃き、"
                        "増速機がゆっくりとした回転を役に立つものにする。"
                    ),
                    "出力は風速の三乗に比例して大きくなるため、わずかな風の違いが大きな意味を持つ。",
                ),
            ),
            (
                "電力網に必要なもの",
                (
                    (
                        "風は注文どおりには吹かない。蓄電池や長い送電線、柔軟な需要家が天気の変化を補い、"
                        "予報によって運用者は翌日の発電量を知ることができる。"
                    ),
                ),
            ),
        ),
        "会社概要とクッキー",
    ),
    Report(
        "ar",
        "طاقة الرياح في البحر",
        (
            (
                "كيف تعمل التوربينة",
                (
                    (
                        "تحول توربينة الرياح حركة الهواء إلى كهرباء. وتغطي شفراتها مساحة أكبر من ملعب كرة القدم، ويجعل "
                        "صندوق التروس الدوران البطيء مفيدا."
                    ),
                    "تنمو القدرة مع مكعب سرعة الرياح، ولذلك فإن الزيادة الصغيرة في الرياح تساوي الكثير.",
                ),
            ),
            (
                "ما تحتاجه الشبكة",
                (
                    (
                        "لا تهب الرياح عند الطلب. ويوازن التخزين والخطوط الطويلة والمستهلكون المرنون ما يعطيه الطقس، "
                        "وتخبر التوقعات المشغلين قبل يوم بما سيأتي."
                    ),
                ),
            ),
        ),
        "بيانات النشر وملفات الارتباط",
    ),
)


def as_pdf(report: Report) -> bytes:
    """One page for the title and one per section, with an outline."""
    pages = [page_of([report.title])]
    outline = [(0, report.title, 0)]
    for number, (heading, paragraphs) in enumerate(report.sections, 1):
        pages.append(page_of([heading, *paragraphs], width=30 if report.language == "ja" else 70))
        outline.append((1, heading, number))
    return pdf(pages, outline=outline, title=report.title)


def as_html(report: Report, encoding: str = "utf-8") -> bytes:
    """An article between navigation and footer."""
    body = "".join(
        f"<h2>{heading}</h2>" + "".join(f"<p>{escaping.escape(paragraph)}</p>" for paragraph in paragraphs)
        for heading, paragraphs in report.sections
    )
    direction = ' dir="rtl"' if report.language == "ar" else ""
    page = (
        f'<!DOCTYPE html><html lang="{report.language}"{direction}><head><meta charset="{encoding}">'
        f"<title>{report.title}</title><script>var tracking = 1;</script></head><body>"
        f'<nav><a href="/">{report.furniture}</a></nav><main><article><h1>{report.title}</h1>{body}</article></main>'
        f"<footer>{report.furniture}</footer></body></html>"
    )
    return page.encode(encoding)


def as_docx(report: Report) -> bytes:
    """Headings by style, and a page header that is no part of the report."""
    import docx

    document = docx.Document()
    document.core_properties.title = report.title
    document.core_properties.language = report.language
    document.sections[0].header.paragraphs[0].text = report.furniture
    document.add_heading(report.title, 1)
    for heading, paragraphs in report.sections:
        document.add_heading(heading, 2)
        for paragraph in paragraphs:
            document.add_paragraph(paragraph)
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def as_markdown(report: Report) -> bytes:
    """ATX and setext headings under front matter."""
    sections = "".join(
        f"## {heading}\n\n" + "".join(f"{paragraph}\n\n" for paragraph in paragraphs)
        for heading, paragraphs in report.sections
    )
    return f"---\ntitle: {report.title}\nlang: {report.language}\n---\n\n{report.title}\n===\n\n{sections}".encode()


def as_text(report: Report) -> bytes:
    """Paragraphs with blank lines between them."""
    blocks = [report.title]
    for heading, paragraphs in report.sections:
        blocks += [heading, *paragraphs]
    return ("\n\n".join(blocks) + "\n").encode()


#: Media type → writer.
WRITERS = {
    "application/pdf": as_pdf,
    "text/html": as_html,
    DOCX: as_docx,
    "text/markdown": as_markdown,
    "text/plain": as_text,
}
