"""Copy into the manual what the repository keeps elsewhere: the notebooks, which are
not executed, the changelog, and the benchmarks' tables."""

from __future__ import annotations

from pathlib import Path

from sphinx.application import Sphinx

PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "results/cost.md",
    "benchmarks/search/README.md": "results/search.md",
}
# Links that lead elsewhere from where a page is copied to.
LINKS = {
    "../benchmarks/search/README.md": "../results/search.md",
    "../docs/results/index.md": "../results/index.md",
    "docs/glossary.md": "glossary.md",
}


def copy_pages(app: Sphinx) -> None:
    source = Path(app.srcdir)
    root = source.parent
    pages = {root / original: source / copy for original, copy in PAGES.items()}
    for notebook in (root / "tutorials").glob("*.ipynb"):
        pages[notebook] = source / "tutorials" / notebook.name
    for original, copy in pages.items():
        text = original.read_text(encoding="utf-8")
        for link, target in LINKS.items():
            text = text.replace(f"]({link})", f"]({target})")
        copy.parent.mkdir(exist_ok=True)
        # A page that is as it was is not read again.
        if not copy.exists() or copy.read_text(encoding="utf-8") != text:
            copy.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    # Before Sphinx looks for pages.
    app.connect("builder-inited", copy_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
