"""Write the pages of the API reference: one a package, from its ``__all__``.

A module that moves inside its package, and a name that is added or removed, need no
change here. Names are grouped by the folder that defines them, if it has siblings.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

import captum_attngrad

ROOT = captum_attngrad.__name__
# The command line has a page of its own.
LEFT_OUT = {f"{ROOT}.cli"}


def _packages() -> dict[str, ModuleType]:
    """Every public package, or module without private parents, with an ``__all__``."""
    found = {}
    for info in pkgutil.walk_packages(captum_attngrad.__path__, f"{ROOT}."):
        parts = info.name.split(".")[1:]
        if any(part.startswith("_") for part in parts) or info.name in LEFT_OUT:
            continue
        if not (info.ispkg or parts[-1] == "functional"):
            continue
        module = importlib.import_module(info.name)
        if getattr(module, "__all__", None):
            found[info.name] = module
    return found


def _homes(packages: dict[str, ModuleType]) -> dict[tuple[str, str], str]:
    """Where each exported name is documented: the package that defines it, if it
    exports it; else the shortest that does."""
    homes = {}
    for package, module in packages.items():
        for name in module.__all__:
            defined = getattr(getattr(module, name), "__module__", "") or package
            exporting = [
                p
                for p, other in packages.items()
                if getattr(other, name, None) is getattr(module, name)
                and name in other.__all__
            ]
            inside = [p for p in exporting if f"{defined}.".startswith(f"{p}.")]
            # A folder of a package exports for that package.
            homes[package, name] = min(inside or exporting, key=len)
    return homes


def _entry(name: str, value: object) -> list[str]:
    if inspect.isclass(value):
        return [f".. autoclass:: {name}", ""]
    if callable(value):
        return [f".. autofunction:: {name}", ""]
    shown = repr(value)
    entry = [f".. py:data:: {name}"]
    if len(shown) < 80:
        entry.append(f"   :value: {shown}")
    elif isinstance(value, dict):
        entry += ["", f"   A dictionary with the keys {', '.join(map(repr, value))}."]
    return [*entry, ""]


def _title(text: str, line: str) -> list[str]:
    return [text, line * len(text), ""]


def _first_line(value: object) -> str:
    paragraph = (inspect.getdoc(value) or "").split("\n\n")[0]
    return " ".join(paragraph.split())


def _group(package: str, value: object) -> str:
    """The public subpackage of ``package`` that defines ``value``, or an empty word."""
    defined = getattr(value, "__module__", "") or ""
    if not defined.startswith(f"{package}."):
        return ""
    folder, _, module = defined.removeprefix(f"{package}.").partition(".")
    return folder if module and not folder.startswith("_") else ""


def _package_page(
    package: str, module: ModuleType, homes: dict[tuple[str, str], str]
) -> str:
    lines = _title(package, "=")
    lines += [f".. py:module:: {package}", "", inspect.getdoc(module) or "", ""]
    elsewhere = [name for name in module.__all__ if homes[package, name] != package]
    if elsewhere:
        links = ", ".join(f":any:`{homes[package, n]}.{n}`" for n in elsewhere)
        lines += [f"Also exported here: {links}.", ""]
    groups: dict[str, list[str]] = {}
    for name in module.__all__:
        if homes[package, name] == package:
            groups.setdefault(_group(package, getattr(module, name)), []).append(name)
    for group, names in sorted(groups.items()):
        if group and len(groups) > 1:
            heading = group.upper() if len(group) == 3 else group.capitalize()
            lines += _title(heading.replace("_", " "), "-")
        for name in names:
            lines += _entry(f"{package}.{name}", getattr(module, name))
    return "\n".join(lines)


def _index_page(
    packages: dict[str, ModuleType], homes: dict[tuple[str, str], str]
) -> str:
    lines = _title("API reference", "=")
    lines += [
        f"``{ROOT}`` itself exports what most programs need. Everything else is "
        "imported from its package.",
        "",
        f".. py:module:: {ROOT}",
        "",
        *_title("Names at the root", "-"),
        ".. list-table::",
        "   :widths: 32 68",
        "",
    ]
    for name in captum_attngrad.__all__:
        value = getattr(captum_attngrad, name)
        home = next((p for (p, n), _ in homes.items() if n == name), None)
        target = homes[home, name] if home else ROOT
        lines += [
            f"   * - :any:`{name} <{target}.{name}>`",
            f"     - {_first_line(value)}",
        ]
    lines += ["", *_title("Packages", "-"), ".. list-table::", "   :widths: 32 68", ""]
    for package, module in packages.items():
        lines += [
            f"   * - :doc:`{package} <{package}>`",
            f"     - {_first_line(module)}",
        ]
    lines += ["", ".. toctree::", "   :hidden:", ""]
    lines += [f"   {package}" for package in packages]
    return "\n".join([*lines, ""])


def _write(path: Path, text: str) -> None:
    """Only what has changed, so that Sphinx does not read all pages again."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def write_pages(app: Sphinx) -> None:
    folder = Path(app.srcdir, "api")
    folder.mkdir(exist_ok=True)
    packages = _packages()
    homes = _homes(packages)
    pages = {"index": _index_page(packages, homes)}
    for package, module in packages.items():
        pages[package] = _package_page(package, module, homes)
    for stale in folder.glob("*.rst"):
        if stale.stem not in pages:
            stale.unlink()
    for name, text in pages.items():
        _write(folder / f"{name}.rst", text)


def _link(
    app: Sphinx, page: str, ending: str, content: nodes.Node
) -> nodes.reference | None:
    """To the one documented object whose full name ends so."""
    objects = app.env.domains.python_domain.objects
    found = [
        full
        for full, entry in objects.items()
        if full.endswith(f".{ending}") and not entry.aliased
    ]
    if len(found) != 1:
        return None
    entry = objects[found[0]]
    return make_refnode(
        app.builder, page, entry.docname, entry.node_id, content, found[0]
    )


def resolve(
    app: Sphinx, env: BuildEnvironment, node: nodes.Element, content: nodes.TextElement
) -> nodes.reference | None:
    """Find what a docstring names without, or with another, path: ``:func:`verify```
    in any module is the one documented object of that name."""
    if node.get("refdomain") != "py":
        return None
    # First as it stands, then without the modules before the class or function.
    parts = str(node["reftarget"]).split(".")
    endings = (".".join(parts[start:]) for start in range(len(parts)))
    links = (_link(app, str(node["refdoc"]), each, content) for each in endings)
    return next((link for link in links if link is not None), None)


def link_names(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Make a link of each name of the root that a page sets as code, so that pages need
    no markup for it and read well outside the manual."""
    for literal in list(doctree.findall(nodes.literal)):
        name = literal.astext()
        if name not in captum_attngrad.__all__:
            continue
        if isinstance(literal.parent, (nodes.reference, nodes.title)):
            continue
        link = _link(app, page, name, literal.deepcopy())
        if link is not None:
            literal.replace_self(link)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write_pages)
    app.connect("missing-reference", resolve)
    app.connect("doctree-resolved", link_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
