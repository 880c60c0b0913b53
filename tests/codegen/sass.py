#!/usr/bin/env python3
"""Counts the machine instructions of each kernel in a cubin, without a disassembler.

    sass.py <file.cubin>...

A cubin is an ELF file with one section .text.<kernel> per kernel. From sm_70 on an instruction is 16 bytes, and the low
12 bits of its first word are its opcode. The names below are those that a rule in budgets.json may ask for; some have
several encodings (by where an operand lives).
"""
import collections
import struct
import sys

OPCODES = {
    "HMMA": {0x23C},               # mma.sync, 16-bit inputs
    "LDSM": {0x83B},               # ldmatrix
    "LDGSTS": {0xFAE},             # cp.async
    "MUFU": {0x308},               # ex2, lg2, rcp
    "HGMMA": {0xDF0, 0x9F0},       # wgmma
    "UTMALDG": {0x5B4},            # bulk tensor copy, global to shared
    "STL": {0x387},                # store to local memory: a spill or an indexed array
    "LDL": {0x983},                # load from local memory
}


def text_sections(data):
    """(kernel, bytes) of each .text.<kernel> section."""
    if data[:4] != b"\x7fELF" or data[4] != 2:
        raise ValueError("not a 64-bit ELF file")
    (offset,) = struct.unpack_from("<Q", data, 0x28)
    size, count, names = struct.unpack_from("<HHH", data, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", data, offset + size * i) for i in range(count)]
    strings = headers[names][4]
    for name, _, _, _, start, length in headers:
        begin = strings + name
        full = data[begin:data.index(b"\0", begin)].decode()
        if full.startswith(".text."):
            yield full[len(".text."):], data[start:start + length]


def histogram(path):
    """kernel -> Counter of its opcodes."""
    with open(path, "rb") as file:
        data = file.read()
    return {kernel: collections.Counter(struct.unpack_from("<H", code, i)[0] & 0xFFF for i in range(0, len(code), 16))
            for kernel, code in text_sections(data)}


def count(counter, name):
    return sum(counter[opcode] for opcode in OPCODES[name])


def main():
    for path in sys.argv[1:]:
        for kernel, counter in histogram(path).items():
            named = {name: count(counter, name) for name in OPCODES if count(counter, name)}
            print(f"{path} {kernel}\n  {sum(counter.values())} instructions, {named}")
            print("  " + " ".join(f"{opcode:03x}:{n}" for opcode, n in sorted(counter.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
