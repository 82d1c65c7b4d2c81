"""Small on purpose: files up to 400 lines, functions up to 60, folders of about twenty files."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILE_LINES, FUNCTION_LINES, FOLDER_FILES = 400, 60, 20
VERBS = "camelid/cli/verbs"  # the list of its files is what camelid can do, so it is as long as that


def test_files_and_functions_stay_small():
    over = []
    for path in sorted([*ROOT.glob("camelid/**/*.py"), *ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/*.py")]):
        text = path.read_text(encoding="utf-8")
        lines = len(text.splitlines())
        if lines > FILE_LINES:
            over.append(f"{path.relative_to(ROOT)}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES:
                    over.append(f"{path.relative_to(ROOT)}: {node.name} has {length} lines")
    assert not over, "\n".join(over)


def full_folders(root: Path) -> dict[str, int]:
    """Folders with more files than the limit; what Python and the build leave is not counted, nor what is hidden."""
    full = {}
    for top in ("camelid", "tests", "benchmarks"):
        for folder in [root / top, *(root / top).rglob("*/")]:
            hidden = any(part.startswith((".", "__")) for part in folder.relative_to(root).parts)
            files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
            count = sum(path.suffix not in (".so", ".pyd") for path in files)
            if not hidden and count > FOLDER_FILES:
                full[folder.relative_to(root).as_posix()] = count
    return full


def test_folders_stay_small():
    full = {name: count for name, count in full_folders(ROOT).items() if name != VERBS}
    over = [f"{name}: {count} files" for name, count in full.items()]
    assert not over, "\n".join(over)


def test_a_full_folder_would_be_seen(tmp_path):
    for top, suffix in (("camelid", ".py"), ("tests", ".so"), ("benchmarks/__pycache__", ".pyc")):
        (tmp_path / top).mkdir(parents=True)
        for number in range(FOLDER_FILES + 1):
            (tmp_path / top / f"file{number}{suffix}").touch()
    assert full_folders(tmp_path) == {"camelid": FOLDER_FILES + 1}
    (tmp_path / "camelid" / "file0.py").unlink()
    assert full_folders(tmp_path) == {}
