#!/usr/bin/env python3
"""One hash of include/ and tests/: what the last GPU run was made from.

    tree_hash.py           prints the hash
    tree_hash.py --check   says whether tests/gpu_record.json was made from this tree (exit 1 if it was not)

Reads the files that lie there, tracked by git or not, without the record itself and what programs leave behind.
"""
import hashlib
import json
import os
import sys

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
RECORD = "tests/gpu_record.json"


def files(root):
    """Paths below root, with '/', in an order that no file system decides."""
    found = []
    for top in ("include", "tests"):
        for folder, folders, names in os.walk(os.path.join(root, top)):
            folders[:] = [name for name in folders if name != "__pycache__" and not name.startswith("build")]
            found += [os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/") for name in names
                      if not name.endswith((".pyc", "~", ".swp", ".orig"))]
    return sorted(path for path in found if path != RECORD)


def tree_hash(root=ROOT):
    digest = hashlib.sha256()
    for path in files(root):
        with open(os.path.join(root, path), "rb") as file:
            content = file.read()
        # The lengths keep one file's end from passing for the next one's beginning.
        digest.update(f"{len(path)} {path} {len(content)} ".encode())
        digest.update(content)
    return digest.hexdigest()


def record_state(root=ROOT):
    """(True if the record is of this tree, a line that says so)."""
    try:
        with open(os.path.join(root, RECORD), encoding="utf-8") as file:
            record = json.load(file)
        run = f"{record['device']}, {record['date']}: {record['passed']} passed, {record['failed']} failed"
        same = record["tree_hash"] == tree_hash(root)
    except FileNotFoundError:
        return False, f"GPU record: there is no {RECORD} (tests/run_gpu.sh on a machine with a GPU writes it)"
    except (ValueError, KeyError) as error:
        return False, f"GPU record: {RECORD} cannot be read ({error})"
    return same, f"GPU record: {'of this tree' if same else 'OF ANOTHER TREE, run tests/run_gpu.sh again'} ({run})"


def main():
    if sys.argv[1:] == ["--check"]:
        same, line = record_state()
        print(line)
        return 0 if same else 1
    print(tree_hash())
    return 0


if __name__ == "__main__":
    sys.exit(main())
