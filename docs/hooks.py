"""What mkdocs does on top for the site: documents from elsewhere, navigation, pages of the library. Used by mkdocs.yml."""

import re
import subprocess
import sys
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
# Documents that lie elsewhere in the repository, by their place in the site.
TAKEN_IN = {"README.md": "index.md", "config/README.md": "configuration.md", "CONTRIBUTING.md": "contributing.md",
            "CHANGELOG.md": "changelog.md", "results/reference/README.md": "reference_records.md"}  # fmt: skip
GUIDES = {
    "own_images.md": "Your own images",
    "glyphs.md": "Glyphs",
    "configuration.md": "Configuration",
    "learning.md": "Closed-form learning",
    "performance.md": "Performance",
    "cluster.md": "On a cluster",
    "replication.md": "What the paper states",
    "reference_records.md": "Reference records",
    "contributing.md": "Contributing",
    "changelog.md": "Changes",
}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_config(config: Any) -> Any:
    """The navigation, of the documents that there are."""
    chapters = sorted((ROOT / "docs" / "chapters").glob("*/README.md"))
    guides = [{title: name} for name, title in GUIDES.items() if _source(name).exists()]
    rendered = [{f"Results: {path.parent.name}": _chapters(path.parent)} for path in chapters]
    config.nav = [{"Guide": "index.md"}, *rendered, {"Documents": guides}, {"Library": "api.md"}]
    return config


def _source(name: str) -> Path:
    taken = {place: source for source, place in TAKEN_IN.items()}
    return ROOT / taken[name] if name in taken else ROOT / "docs" / name


def _chapters(folder: Path) -> list[Any]:
    pages = sorted(path for path in folder.glob("*.md") if path.name != "README.md")
    place = f"chapters/{folder.name}"
    titles = {path: re.search(r"^# (.*)$", path.read_text(), re.MULTILINE) for path in pages}
    return [
        {"Overview": f"{place}/README.md"},
        *({found[1]: f"{place}/{path.name}"} for path, found in titles.items() if found),
    ]


def on_files(files: Files, config: Any) -> Files:
    """Add the documents from elsewhere, and a page that leads to those of the library."""
    for source, place in TAKEN_IN.items():
        files.append(File.generated(config, place, content=(ROOT / source).read_text()))
    api = '# The library\n\nModules, classes and functions of `lsc`: <a href="api/lsc.html">all pages</a>.\n'
    files.append(File.generated(config, "api.md", content=api))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links as they are in the repository, to where the site has what they lead to; as plain words where it has it not."""
    taken = {place: source for source, place in TAKEN_IN.items()}
    here = PurePosixPath(page.file.src_uri)
    source = PurePosixPath(taken[str(here)]) if str(here) in taken else PurePosixPath("docs") / here
    known = {file.src_uri for file in files}

    def link(found: re.Match[str]) -> str:
        picture, words, target = found.groups()
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target) or not path:
            return found[0]
        inside = normpath(str(source.parent / path))
        if not (ROOT / inside).exists():
            raise SystemExit(f"{source}: {target} leads to no file")
        if (ROOT / inside).is_dir() and f"{inside}/README.md".removeprefix("docs/") in known:
            inside += "/README.md"
        place = TAKEN_IN.get(inside, inside.removeprefix("docs/") if inside.startswith("docs/") else "")
        if place not in known:
            return words
        return f"{picture}[{words}]({relpath(place, str(here.parent))}{f'#{anchor}' if anchor else ''})"

    code = re.split(r"(^```.*?^```$)", markdown, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if place % 2 else _LINK.sub(link, part) for place, part in enumerate(code))


def on_post_build(config: Any) -> None:
    """The pages of the library, each with its warnings as errors."""
    words = [sys.executable, "-W", "error", str(ROOT / "docs" / "pages.py"), str(Path(config.site_dir) / "api")]
    subprocess.run(words, check=True, cwd=ROOT)
