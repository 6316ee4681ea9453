"""Small documents of each format, written by hand: what an editor would save, as far as a reader of text looks."""

import io
import zipfile
from collections.abc import Mapping, Sequence

_W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
_A = (
    'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" '
    'xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main"'
)


def archive(members: Mapping[str, str | bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as made:
        for name, content in members.items():
            made.writestr(name, content, zipfile.ZIP_STORED if name == "mimetype" else None)
    return file.getvalue()


def docx(*paragraphs: tuple[str, str], style_names: Mapping[str, str] | None = None) -> bytes:
    """Paragraphs, each with the id of its style and its text."""
    body = "".join(
        f'<w:p><w:pPr><w:pStyle w:val="{style}"/></w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>'
        for style, text in paragraphs
    )
    styles = "".join(
        f'<w:style w:styleId="{style}"><w:name w:val="{name}"/></w:style>'
        for style, name in (style_names or {"Heading1": "heading 1", "Heading2": "heading 2"}).items()
    )
    return archive(
        {
            "word/document.xml": f"<?xml version='1.0'?><w:document {_W}><w:body>{body}</w:body></w:document>",
            "word/styles.xml": f"<w:styles {_W}>{styles}</w:styles>",
        }
    )


def pptx(*slides: tuple[str, Sequence[str]]) -> bytes:
    """Slides, each with its title and lines."""

    def shape(kind: str, lines: Sequence[str]) -> str:
        text = "".join(f"<a:p><a:r><a:t>{line}</a:t></a:r></a:p>" for line in lines)
        return f'<p:sp><p:nvPr><p:ph type="{kind}"/></p:nvPr><p:txBody>{text}</p:txBody></p:sp>'

    return archive(
        {
            f"ppt/slides/slide{number}.xml": f"<p:sld {_A}>{shape('title', [title])}{shape('body', lines)}</p:sld>"
            for number, (title, lines) in enumerate(slides, 1)
        }
    )


def odt(body: str) -> bytes:
    """The content of office:text, with the prefix `text`."""
    names = (
        'xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" '
        'xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"'
    )
    content = f"<office:document-content {names}><office:text>{body}</office:text></office:document-content>"
    return archive({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": content})


def epub(*chapters: str) -> bytes:
    """Chapters as the bodies of their pages; the spine lists them from the last file name to the first."""
    names = [f"page-{len(chapters) - number}.xhtml" for number in range(len(chapters))]
    items = "".join(f'<item id="{name}" href="{name}" media-type="application/xhtml+xml"/>' for name in sorted(names))
    spine = "".join(f'<itemref idref="{name}"/>' for name in names)
    package = (
        f'<package xmlns="http://www.idpf.org/2007/opf"><manifest>{items}</manifest><spine>{spine}</spine></package>'
    )
    pages = {
        f"OEBPS/{name}": f'<?xml version="1.0" encoding="utf-8"?><!DOCTYPE html><html><body>{body}</body></html>'
        for name, body in zip(names, chapters, strict=True)
    }
    container = '<container><rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
    return archive(
        {"mimetype": "application/epub+zip", "META-INF/container.xml": container, "OEBPS/book.opf": package, **pages}
    )


def pdf(pages: Sequence[str], titles: Mapping[int, str] | None = None) -> bytes:
    """Pages of one line of ASCII each, and an outline: titles by the number of their page, counted from 0."""
    titles = titles or {}
    first = 3 + 2 * len(pages)
    entries = sorted(titles.items())
    objects = [
        f"<</Type/Catalog/Pages 2 0 R/Outlines {first + 1} 0 R>>",
        f"<</Type/Pages/Count {len(pages)}/Kids[{' '.join(f'{3 + 2 * n} 0 R' for n in range(len(pages)))}]>>",
    ]
    for number, line in enumerate(pages):
        drawing = f"BT /F1 12 Tf 72 720 Td ({line}) Tj ET"
        resources = f"<</Font<</F1 {first} 0 R>>>>"
        objects += [
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Resources{resources}/Contents {4 + 2 * number} 0 R>>",
            f"<</Length {len(drawing)}>>stream\n{drawing}\nendstream",
        ]
    objects.append("<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>")
    ends = f"/First {first + 2} 0 R/Last {first + 1 + len(entries)} 0 R" if entries else ""
    objects.append(f"<</Type/Outlines/Count {len(entries)}{ends}>>")
    for place, (page, title) in enumerate(entries):
        following = f"/Next {first + 3 + place} 0 R" if place + 1 < len(entries) else ""
        objects.append(f"<</Title({title})/Parent {first + 1} 0 R/Dest[{3 + 2 * page} 0 R /Fit]{following}>>")
    content = b"%PDF-1.4\n"
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(content))
        content += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    head = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer<</Size {len(objects) + 1}/Root 1 0 R>>\n"
    return content + f"{head}startxref\n{len(content)}\n%%EOF\n".encode()


NOTEBOOK = """{"nbformat": 4, "cells": [
 {"cell_type": "markdown", "source": ["# Rain\\n", "How much fell."]},
 {"cell_type": "code", "source": "def total():\\n    return sum(rain)", "outputs": [{"text": "12345"}]}]}"""
PAGE = """<!DOCTYPE html>
<html><head><title>Bread  book</title><style>p { color: red }</style>
<script>if (1 < 2) alert("no")</script></head>
<body><h1>Sourdough</h1>
<p>Feed the starter
every&nbsp;day.</p><ul><li>flour</li><li>water</li></ul>
<h2>Oven</h2><table><tr><td>heat</td><td>250 &deg;C</td></tr></table></body></html>"""
