"""The Python in the documentation runs, and its links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def _python(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.slow  # each page imports torch in a process of its own
@pytest.mark.parametrize("page", [page for page in PAGES if _python(page)], ids=lambda page: page.name)
def test_the_python_of_a_page_runs_from_top_to_bottom(page, tmp_path):
    code = "\n".join(_python(page))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_to_files_that_exist(page):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text())
    targets += re.findall(r'src(?:set)?="(?!https?:)([^"]+)"', page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing
