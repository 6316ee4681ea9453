"""Says which tests were skipped and why, from pytest's JUnit files: python tests/skipped.py build/test-wheel.xml ...

`make test` runs this last, so that what was not tested stands below what was, and not a thousand lines above.
"""

import ast
import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree


def skipped_tests(reports: list[Path]) -> dict[str, list[str]]:
    """The modules of skipped tests by reason, one entry a test."""
    modules: dict[str, list[str]] = defaultdict(list)
    for report in reports:
        for case in ElementTree.parse(report).iter("testcase"):
            for skip in case.findall("skipped"):
                if skip.get("type") == "pytest.skip":
                    modules[skip.get("message", "")].append(case.get("classname", ""))
                elif skip.get("message") == "collection skipped":  # a whole module: (file, line, "Skipped: reason")
                    reason = str(ast.literal_eval(skip.text or "")[2])
                    modules[reason.removeprefix("Skipped: ")].append(case.get("name", ""))
    return modules


def main() -> None:
    modules = skipped_tests([Path(name) for name in sys.argv[1:]])
    print(f"skipped: {sum(map(len, modules.values()))} tests")
    for reason, names in sorted(modules.items(), key=lambda item: -len(item[1])):
        print(f"  {len(names)} in {', '.join(sorted(set(names)))}: {reason}")


if __name__ == "__main__":
    main()
