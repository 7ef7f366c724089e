"""The package's copyright file: copyright.py BILL

In: the bill of materials that sbom.py wrote. Out: on standard output the file that Debian wants under /usr/share/doc
(copyright-format 1.0): edgeblock's licence, and of each library its name, its version, what licence it says it has,
and where the text lies. Never: the network.
"""

import json
import sys
from pathlib import Path

SITE = "usr/lib/edgeblock/lib/python*/site-packages"


def main(bill: str) -> None:
    parts = json.loads(Path(bill).read_text())["components"]
    print("Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: edgeblock\n")
    print("Files: *\nCopyright: the edgeblock developers\nLicense: GPL-2+\n"
          " Debian has the text of the GNU General Public License, version 2 (a later one serves as well), in\n"
          " /usr/share/common-licenses/GPL-2.")
    for part in parts:
        if not part["purl"].startswith("pkg:pypi/"):
            continue
        said = "; ".join(one["license"]["name"] for one in part["licenses"]) or "see its folder"
        print(f"\nFiles: {SITE}/{part['name'].replace('-', '_')}*\nCopyright: its authors, as its folder says\n"
              f"License: {part['name']}-{part['version']}\n {said}. Its text is in the folder\n"
              f" /{SITE}/{part['name'].replace('-', '_')}-{part['version']}.dist-info.")


if __name__ == "__main__":
    main(*sys.argv[1:])
